"""The native engine: a bundle packed for the C core, and the core as a detector.

The sources of the core are in `core`; firmware is built from the same files.
"""
