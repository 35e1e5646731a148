"""A reader script as a user would write it: a header, then a line per second, for ever.

python3 reader.py [LINES_PER_SECOND]
"""

import itertools
import sys
import time
from pathlib import Path

rate = float(sys.argv[1]) if sys.argv[1:] else 1.0
header, *rows = Path(__file__).with_name("rows.csv").read_text().splitlines()
print(header, flush=True)
start = time.monotonic()
for count, row in enumerate(itertools.cycle(rows), 1):
    print(row, flush=True)
    time.sleep(max(0.0, start + count / rate - time.monotonic()))
