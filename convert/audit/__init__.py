"""The contents of a model file, and the targets that can run it.

A .tflite file comes in; facts by operator and a verdict per target go out.
"""
