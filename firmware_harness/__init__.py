"""The firmware's room: a bundle as C on a microcontroller, emulated, compared and injured.

A bundle comes in; C sources, images for two emulated boards, their records and a verdict go out.
The detector itself is `core`, in portable C. `firmware/boards` is what differs from board to board,
`firmware/app` the loop around the detector. This room imports edge_runtime; nothing imports it.
"""
