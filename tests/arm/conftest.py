"""Each Arm processor in turn, its userland made when first asked for."""

import pytest
from arm_userland import ARMS, Arm, ready


@pytest.fixture(scope="session", params=ARMS.values(), ids=lambda arm: arm.name)
def arm(request: pytest.FixtureRequest) -> Arm:
    """An Arm whose Python can be run; the error names the Debian packages that are missing."""
    ready(request.param)
    return request.param  # type: ignore[no-any-return]
