"""The detector's room: one sample and a state come in, one record and the next state go out.

Host arithmetic lives here, in float32 and in one fixed order, for C to repeat bit by bit.
"""
