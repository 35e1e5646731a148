"""The journal's room: messages that outlive a dead network, a full queue and a power cut.

Bytes come in, one message after the other, and get a number. The newest stay in memory, all go to
segment files in one folder, the oldest of which give way when their total size is reached.
Readers take messages out in order, and a cursor on the disk keeps how far each of them is.

What a message says is nobody's business here: never import sinks, records or bundles.
"""
