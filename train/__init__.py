"""The workstation's first room: recordings of a healthy machine come in, a run folder goes out.

A run folder holds the float weights, the scaler, the held-out rows and the metrics of one
training. This room may import edge_runtime; it must never import convert or firmware_harness.
TensorFlow is imported only inside the modules that train.
"""
