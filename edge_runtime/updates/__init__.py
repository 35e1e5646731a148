"""Updates: which of the installed bundles runs, and how another one takes its place.

A checked bundle is copied into a read-only slot and goes through a trial. Pointers, two small files
with the same content, say what runs and what to fall back to. All writing goes through `disk`, so
that a power cut leaves the old choice or the new one.
"""
