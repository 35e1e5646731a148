"""systemd's notification protocol: a few words on a datagram socket, nothing without one."""

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

from edge_runtime.supervision.listener import Listener

_STATUS_EVERY = 1.0  # seconds, where no watchdog asks for more


class Notifier(Listener):
    """Tells the service manager that we are ready, alive and stopping.

    environment: NOTIFY_SOCKET names the socket (`@` for an abstract one), WATCHDOG_USEC the
    watchdog's time-out in microseconds. clock: monotonic seconds.
    A socket that vanishes is no reason to stop watching a machine: failures are ignored.
    """

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], float]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._clock = clock
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "") if mine else ""
        self._watchdog = microseconds.isdecimal() and int(microseconds) > 0
        self._interval = int(microseconds) / 2e6 if self._watchdog else _STATUS_EVERY
        self._next = float("-inf")

    def ready(self, status: str) -> None:
        """Samples are answered from now on."""
        self._send(f"READY=1\nSTATUS={status}")

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """One sample was answered completely; call only then. Sends twice per time-out."""
        now = self._clock()
        if not self._address or now < self._next:
            return
        self._next = now + self._interval
        self._send(("WATCHDOG=1\n" if self._watchdog else "") + f"STATUS={status()}")

    def delay(self, status: str, seconds: float) -> None:
        """The start takes longer: ask for so many more seconds, and say why."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}\nSTATUS={status}")

    def stopping(self) -> None:
        """The run is ending in good order."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)  # a full queue at the manager must not hold up a sample
            channel.sendto(text.encode(), self._address)
