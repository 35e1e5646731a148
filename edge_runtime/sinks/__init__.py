"""Sinks: where records go.

A sink takes records one by one and writes them as JSON to a file, stdout or a network. It never
blocks or ends the loop; it counts what it could not write. Messages for a network wait in memory or
in the journal.
"""
