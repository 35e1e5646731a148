"""Firmware: a bundle as C on an emulated microcontroller, compared with the runtime, with faults.

A bundle comes in; C sources, images for two emulated boards, their records and a verdict go out.
The detector itself is `core`, in portable C. `firmware/boards` contains the code that depends on
the board, `firmware/app` the loop around the detector. This package imports edge_runtime.
"""
