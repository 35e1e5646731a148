"""Training: recordings of a healthy machine come in, a run folder goes out.

A run folder holds the float weights, the scaler, the held-out rows and the metrics of one
training. This package may import edge_runtime, never convert or firmware_harness. Only the
modules that train a network import TensorFlow.
"""
