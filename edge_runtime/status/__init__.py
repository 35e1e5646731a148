"""The state of a run, shown to people, scripts and Prometheus.

`publisher` takes the records and state of a run and publishes a snapshot once a second: into a file
that `gruard status` and `gruard top` read, and to clients that scrape the metrics. Nothing here may
delay or end a run: the loop only hands over, threads write. Reading a snapshot needs neither numpy
nor a bundle.
"""
