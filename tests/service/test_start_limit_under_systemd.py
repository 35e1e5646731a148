"""The start limit under a real systemd: a system of its own, which is gone at the end."""

import pytest
from booted import Booted
from tiny_service import BUNDLE, UNIT, install, kill_main

from edge_runtime.service.request import BURST

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def installed(systemd: Booted) -> Booted:
    """The service with a reboot behind its start limit, running."""
    install(systemd, "--on-start-limit", "reboot")
    return systemd


def test_a_mistake_of_the_user_neither_loops_nor_reboots(installed: Booted) -> None:
    installed("mv", BUNDLE, BUNDLE + ".away")
    assert installed.run("systemctl", "restart", UNIT).returncode
    assert installed.property(UNIT, "ActiveState") == "failed"
    assert installed.property(UNIT, "ExecMainStatus") == "2"
    installed("mv", BUNDLE + ".away", BUNDLE)
    installed("systemctl", "reset-failed", UNIT)  # and so the count of starts
    installed("systemctl", "start", UNIT)


def test_a_crash_loop_reboots_the_machine(installed: Booted) -> None:
    for _ in range(BURST - 1):
        kill_main(installed)
    installed("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    assert installed.end() == -1  # SIGHUP: PID 1 asked the kernel for a reboot
