"""The status room: what a run is doing right now, told to people, scripts and Prometheus.

Records of a run and its state come in (`watch`); a snapshot goes out once a second, into a file
that `gruard status` and `gruard top` read, and to whoever scrapes the metrics. Nothing here may
hold up or end a run: the loop only hands over, threads write. A reader of snapshots needs no numpy
and no bundle.
"""
