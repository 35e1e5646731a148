"""gruard as a systemd service: `gruard@.service`, and the settings of one machine next to it.

`request` checks what a user asks for and turns it into settings. `units` writes and removes the
files. Nothing here runs a model or reads a sample, and nothing of the runtime imports it.
"""
