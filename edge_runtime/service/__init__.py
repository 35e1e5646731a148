"""The service's room: from the arguments of `gruard run` to a hardened systemd unit.

In come the words a user would type and what surrounds them (`order`), out goes the text of a unit
(`unit`), written and removed by `installation`. Nothing here runs a model or reads a sample, and
nothing of the runtime imports it.
"""
