"""A process that has more descriptors open than select(2) can name."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def beyond_1024() -> Iterator[None]:
    """Within the block every new descriptor has a number above 1,100."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))
    many = [os.open("/dev/null", os.O_RDONLY)]
    try:
        while many[-1] < 1100:
            many.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for each in many:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
