"""The native engine's room: a bundle packed for the C core, and the core as a detector.

The core's C sources are those of the firmware; here they run on the device's own processor.
"""
