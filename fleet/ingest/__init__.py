"""What the records of a fleet say: totals of each asset, drift, and alarms that many share.

Read `run.py` first: inputs of each asset → batches of records → totals on disk → tables and a page.
"""
