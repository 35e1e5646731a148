"""Plugin of coverage.py: measures also the threads that `_thread.start_new_thread` starts.

coverage.py traces a thread through `threading.settrace`, which only `threading.Thread` applies.
"""

import _thread
import sys
import threading
from typing import Any

_start = _thread.start_new_thread


def _start_traced(body: Any, *arguments: Any) -> int:
    def traced(*given: Any, **named: Any) -> None:
        sys.settrace(threading.gettrace())
        body(*given, **named)

    return _start(traced, *arguments)


def coverage_init(_registry: object, _options: object) -> None:
    """Called by coverage.py in each process that it measures."""
    _thread.start_new_thread = _start_traced  # type: ignore[assignment]
