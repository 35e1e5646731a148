"""A reader script as a user would write it: a header, then a line per second, for ever."""

import itertools
import time
from pathlib import Path

header, *rows = Path(__file__).with_name("rows.csv").read_text().splitlines()
print(header, flush=True)
start = time.monotonic()
for count, row in enumerate(itertools.cycle(rows), 1):
    print(row, flush=True)
    time.sleep(max(0.0, start + count - time.monotonic()))
