"""Many machines: learn, re-score and compare detectors for a fleet of assets, on Dask.

May import edge_runtime, train and convert. Nothing below imports it; one machine needs none of it.
"""
