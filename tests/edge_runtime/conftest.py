"""The made accelerator, and a local time, for tests of the device's room."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from no_workstation import only_the_device, refuse_the_workstation

from tests.apparatus import made_delegate


def pytest_configure(config: pytest.Config) -> None:
    if only_the_device(config):
        refuse_the_workstation()


@pytest.fixture(scope="session")
def delegate_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real delegate library (see `made_delegate.c`)."""
    return made_delegate.build(tmp_path_factory.mktemp("delegate"))


@pytest.fixture(scope="module")
def utc() -> Iterator[None]:
    """Local time is UTC; the run of `made_snapshot` then started the day before its snapshot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()
