"""The detector: from one sample and a state to one record and the next state.

Host arithmetic is float32 in one fixed order, so that the C core gives the same bits.
"""
