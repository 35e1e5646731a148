"""Conversion: a run folder comes in, a bundle with its proof goes out.

One recurrent step is exported as int8, calibrated with the device's own code, and validated
against the float model. This package imports train and edge_runtime.
"""
