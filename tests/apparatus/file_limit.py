"""A disk that is full for this process: files grow no further than a limit."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_below(limit: int) -> Iterator[None]:
    """A file may not grow beyond `limit` bytes: the kernel cuts a write short, as a full disk does.

    Not a fixture: pytest's own output, which may be a file, must not fall under the limit.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
