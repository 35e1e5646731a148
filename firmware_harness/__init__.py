"""The firmware's room: a bundle as C on a microcontroller, emulated, compared and injured.

A bundle comes in; C sources, images for two emulated boards, their records and a verdict go out.
`firmware/core` is the detector in portable C, `firmware/boards` what differs from board to board,
`firmware/app` the loop around it. This room imports edge_runtime; nothing imports it.
"""
