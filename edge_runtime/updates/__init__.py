"""The updates' room: which of the bundles on this device runs, and how another takes its place.

A checked bundle comes in and becomes a read-only slot; a new one goes through a trial. What runs
and what it falls back to is one small file. All writing goes through `disk`, so that a power cut
leaves the old choice or the new one. Never write to the store past it.
"""
