"""The kernel's watchdog device: it resets the whole machine when answers stay away.

For a device without a service manager that has a watchdog of its own. Requests and flags are those
of Linux's include/uapi/linux/watchdog.h; they are the same numbers on Arm and x86.

Who is told how a run goes: the service manager, the kernel's watchdog, the next start.

systemd's notification protocol: a few words on a datagram socket, nothing without one.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edge_runtime.errors import GruardError, LimitedLog


class Listener:
    """Hears of a run's life; does nothing unless a subclass says what."""

    def ready(self, status: str) -> None:
        """Samples are answered from now on: the model is loaded or the fallback has taken over."""

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Sample `index` was answered completely, its record is out. Called for nothing else."""

    def stopping(self) -> None:
        """No more samples are answered, for whatever reason."""

    def ended(self) -> None:
        """The run ended in good order. Never called after an error."""


class Listeners(Listener):
    """Several listeners as one, told in the order given."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def ready(self, status: str) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.ready(status)

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.beat(index, status)

    def stopping(self) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.stopping()

    def ended(self) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.ended()


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


LONGEST_TIMEOUT = 14
"""Seconds. The Raspberry Pi's hardware counts to 15 at most."""

GET_BOOT_STATUS = 0x80045702
SET_TIMEOUT = 0xC0045706
GET_TIMEOUT = 0x80045707
CARD_RESET = 0x20
"""The boot status of a machine that its watchdog has reset."""

_KEEP_ALIVE, _MAGIC_CLOSE = b"\0", b"V"
_FEEDS_PER_TIMEOUT = 4
_SHORTEST_FEED = 1.0  # seconds between keep-alives where the time-out cannot be read, or is long
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY)
_SYSFS = Path("/sys/class/watchdog")


class Ioctl(Protocol):
    """`fcntl.ioctl` with a buffer that the kernel writes its answer into."""

    def __call__(self, fd: int, request: int, arg: bytearray, mutate_flag: bool, /) -> int:
        """Raise OSError where the driver refuses."""


class KernelWatchdog(Listener):
    """Armed once samples are answered, fed by completed samples alone, disarmed by a good end.

    timeout: whole seconds without a completed sample until the machine is reset.
    clock: monotonic seconds; log: takes one line per event.

    A process that is killed, crashes or hangs leaves it armed: that is what it is there for.
    """

    def __init__(
        self,
        device: Path,
        timeout: int,
        clock: Callable[[], float],
        log: Callable[[str], None],
        ioctl: Ioctl = fcntl.ioctl,
    ) -> None:
        self._device, self._timeout = device, timeout
        self._clock, self._log, self._ioctl = clock, log, ioctl
        self._fd = -1
        self._interval = min(_SHORTEST_FEED, timeout / _FEEDS_PER_TIMEOUT)
        self._next = float("-inf")
        self._troubles = LimitedLog(log, clock)

    def ready(self, status: str) -> None:
        """Arm it. Not earlier: loading takes longer than a watchdog waits.

        Raises GruardError when the device cannot be used; then it is not armed.
        """
        try:
            self._fd = os.open(self._device, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise GruardError(f"{self._device}: {_advice(error)}") from None
        try:
            granted = self._set_timeout()
        except OSError as error:
            self.ended()
            raise GruardError(
                f"{self._device}: takes no time-out of {self._timeout} s ({error.strerror}); "
                "name another --watchdog-timeout"
            ) from None
        after = "the time-out of its driver" if granted is None else f"{granted} s"
        self._log(f"{self._device} resets this machine after {after} without an answered sample")
        if (self._number(GET_BOOT_STATUS) or 0) & CARD_RESET:
            self._log(f"{self._device} says that the last reset of this machine was the watchdog's")

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Feed it, a few times per time-out and no oftener."""
        now = self._clock()
        if self._fd < 0 or now < self._next:
            return
        self._next = now + self._interval
        try:
            os.write(self._fd, _KEEP_ALIVE)
        except OSError as error:
            self._troubles.trouble("feed", f"{self._device}: cannot be fed ({error.strerror})")

    def ended(self) -> None:
        """Disarm it, unless the kernel was built or told never to let go (nowayout)."""
        if self._fd < 0:
            return
        try:
            os.write(self._fd, _MAGIC_CLOSE)
        except OSError as error:
            self._log(f"{self._device}: cannot be disarmed ({error.strerror})")
        finally:
            os.close(self._fd)
            self._fd = -1

    def _set_timeout(self) -> int | None:
        """Ask for the time-out; what the driver granted, None where it does not tell."""
        buffer = bytearray(struct.pack("i", self._timeout))
        try:
            self._ioctl(self._fd, SET_TIMEOUT, buffer, True)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        granted = self._number(GET_TIMEOUT)
        if granted is not None:
            self._interval = min(_SHORTEST_FEED, granted / _FEEDS_PER_TIMEOUT)
        return granted

    def _number(self, request: int) -> int | None:
        buffer = bytearray(struct.pack("i", 0))
        try:
            self._ioctl(self._fd, request, buffer, True)
        except OSError:
            return None  # drivers differ in what they tell
        number: int = struct.unpack("i", buffer)[0]
        return number


def require_usable(device: Path, period: float | None, timeout: int) -> None:
    """Raise GruardError, before anything is loaded, when `device` cannot guard this run.

    period: seconds between samples, None when unknown.
    """
    if not device.is_char_device():
        raise GruardError(
            f"{device}: is no watchdog device; load its kernel module, or leave --watchdog away"
        )
    if not os.access(device, os.W_OK):
        raise GruardError(f"{device}: may not be opened by this user; run as root or with a group")
    if period is not None and 2 * period > timeout:
        raise GruardError(
            f"--watchdog-timeout {timeout}: samples are {period:g} s apart, and a healthy machine "
            f"would be reset; --watchdog suits samples at most {LONGEST_TIMEOUT / 2:g} s apart"
        )


def require_unwatched(environment: Mapping[str, str]) -> None:
    """Raise GruardError when systemd watches this process already."""
    if environment.get("WATCHDOG_USEC"):
        raise GruardError(
            "--watchdog: systemd watches this process already (WatchdogSec=); leave --watchdog "
            "away and let systemd own the device (RuntimeWatchdogSec= in /etc/systemd/system.conf)"
        )


def was_watchdog_reset(folder: Path = _SYSFS) -> bool:
    """Whether a watchdog of this machine says that it caused the last reset.

    Sysfs tells without opening, and so arming, the device. Not every driver knows: the
    Raspberry Pi's does not.
    """
    return any(_boot_status(file) & CARD_RESET for file in folder.glob("*/bootstatus"))


def _boot_status(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _advice(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "is in use; systemd's RuntimeWatchdogSec= or another program holds it"
    return f"cannot be opened ({error.strerror})"
