"""What is in a model file and who can run it.

A .tflite file comes in; facts, operator by operator, and a verdict per target go out.
"""
