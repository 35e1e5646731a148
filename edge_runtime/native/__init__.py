"""The native engine's room: a bundle packed for the C core, and the core as a detector.

The core's C sources are in `core`; firmware is built from the same files.
"""
