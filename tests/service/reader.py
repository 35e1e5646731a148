"""A reader script as a user would write it: a header, then a line per second."""

import time
from pathlib import Path

header, *rows = Path("/opt/rows.csv").read_text().splitlines()
print(header, flush=True)
start = time.monotonic()
for count, row in enumerate(rows * 100):
    print(row, flush=True)
    time.sleep(max(0.0, start + count + 1 - time.monotonic()))
