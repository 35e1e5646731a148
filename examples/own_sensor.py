"""A sensor of your own for `gruard run … --source python:own_sensor.py`: how busy this machine is.

Copy it, and put what reads your sensors into READERS; the names are the bundle's channels.
"""

import os
import time

import numpy as np

from edge_runtime.sources.source import Polled, Reading

READERS = {
    "load": lambda: os.getloadavg()[0],
    "memory": lambda: os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6,
}


def number(channel):
    """The reading of one channel; NaN when it fails, so that the others go on."""
    try:
        return READERS[channel]()
    except OSError:
        return np.nan


def open_sensor(channels, period):
    """The readings of `channels`, one in every `period` seconds."""

    def measure():
        return Reading(time.time(), np.array([number(each) for each in channels], np.float32))

    return Polled(measure, period)
