"""The sinks' room: where records go.

Records come in, one after the other, and leave as JSON for files, stdout and networks. A sink never
holds up the loop and never ends it; what it could not write it counts. What waits for a network
waits in the journal's room.
"""
