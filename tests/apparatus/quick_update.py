"""`gruard` whose `update --every` takes seconds (2s), so that a test does not wait for minutes."""

import re

from edge_runtime import mute
from edge_runtime.commands.main import main
from edge_runtime.updates import update_loop

mute.SHORTEST = 1.0
mute._UNITS["s"] = 1.0
mute._DURATION = re.compile(r"([0-9]{1,9})([smhd])")
update_loop.LOOK = 0.5
update_loop.FIRST_PAUSE = 2.0

if __name__ == "__main__":
    main()
