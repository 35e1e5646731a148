"""A laboratory on the small bundle, for the campaign in small."""

from pathlib import Path

import pytest

from tests.campaign.lab import Lab, open_lab


@pytest.fixture
def lab(tiny_bundle: Path, tmp_path: Path) -> Lab:
    return open_lab(tiny_bundle, tmp_path)
