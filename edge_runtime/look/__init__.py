"""Look at a recording before learning from it: what is in it, and which stretches do not belong.

CSV files come in, one page goes out: text, JSON or HTML. Nothing is learned and nothing changed.
"""
