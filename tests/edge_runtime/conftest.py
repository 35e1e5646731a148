"""The made accelerator for all tests of the device's room."""

from pathlib import Path

import pytest

from tests.apparatus import made_delegate


@pytest.fixture(scope="session")
def delegate_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real delegate library (see `made_delegate.c`)."""
    return made_delegate.build(tmp_path_factory.mktemp("delegate"))
