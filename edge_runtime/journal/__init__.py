"""The journal: messages that survive a dead network, a full queue and a power cut.

Messages are bytes and get consecutive numbers. The newest stay in memory; all go to segment files
in one folder, where the oldest segment is dropped when the capacity is reached. Readers take the
messages out in order, and a cursor file keeps how far each of them is.

The journal does not look into messages: never import sinks, records or bundles here.
"""
