"""The workstation's second room: a run folder comes in, a proven bundle goes out.

One recurrent step is exported as int8, calibrated with the device's own code, and validated
against the float model. This room imports train and edge_runtime; nothing imports it.
"""
