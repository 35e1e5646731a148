"""Listeners that report a run's life: to systemd, and to the kernel's watchdog device.

`Notifier` speaks systemd's notification protocol (sd_notify: a few words on a datagram socket).
`KernelWatchdog` is for a device without a service manager: its watchdog resets the whole machine
when no samples are answered. Requests and flags are those of Linux's include/uapi/linux/watchdog.h;
the numbers are the same on Arm and x86.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from edge_runtime.errors import GruardError, LimitedLog

_STATUS_EVERY = 1.0  # seconds, where no systemd watchdog needs it more often

LONGEST_TIMEOUT = 14
"""Seconds. The Raspberry Pi's hardware counts to 15 at most."""
GET_BOOT_STATUS = 0x80045702
SET_TIMEOUT = 0xC0045706
GET_TIMEOUT = 0x80045707
CARD_RESET = 0x20
"""The boot status of a machine that its watchdog has reset."""
_KEEP_ALIVE, _MAGIC_CLOSE = b"\0", b"V"
_FEEDS_PER_TIMEOUT = 4
_LONGEST_FEED = 1.0  # seconds between two keep-alives at most
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY)
_SYSFS = Path("/sys/class/watchdog")


class Listener:
    """Follows a run's life. Each method does nothing unless a subclass overrides it."""

    def ready(self, status: str) -> None:
        """Samples are answered from now on: by the model, or by the fallback."""

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Sample `index` is answered and its record is out. Called for nothing else."""

    def stopping(self) -> None:
        """No more samples are answered, for whatever reason."""

    def ended(self) -> None:
        """The run ended in good order. Never called after an error."""


class Notifier(Listener):
    """Tells the service manager that the run is ready, alive or stopping.

    environment: NOTIFY_SOCKET names the socket (`@` for an abstract one), WATCHDOG_USEC the
    watchdog's time-out in microseconds. clock: monotonic seconds.
    Errors of the socket are ignored: the run does not depend on it.
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
        """Send READY."""
        self._send(f"READY=1\nSTATUS={status}")

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Send the status, and feed systemd's watchdog; twice per time-out."""
        now = self._clock()
        if not self._address or now < self._next:
            return
        self._next = now + self._interval
        self._send(("WATCHDOG=1\n" if self._watchdog else "") + f"STATUS={status()}")

    def delay(self, status: str, seconds: float) -> None:
        """Ask for so many more seconds to start, and say why."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}\nSTATUS={status}")

    def stopping(self) -> None:
        """Send STOPPING."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)  # a full queue at the manager must not delay a sample
            channel.sendto(text.encode(), self._address)


class KernelWatchdog(Listener):
    """The watchdog: armed when samples are answered, fed by each answer, disarmed by a good end.

    timeout: whole seconds without an answered sample until the machine is reset.
    clock: monotonic seconds; log: takes one line per event. ioctl: as `fcntl.ioctl` on a buffer.
    A process that is killed, crashes or hangs leaves it armed, and so the machine is reset.
    """

    def __init__(
        self,
        device: Path,
        timeout: int,
        clock: Callable[[], float],
        log: Callable[[str], None],
        ioctl: Callable[[int, int, bytearray, bool], int] = fcntl.ioctl,
    ) -> None:
        self._device, self._timeout = device, timeout
        self._clock, self._log, self._ioctl = clock, log, ioctl
        self._fd = -1
        self._interval = min(_LONGEST_FEED, timeout / _FEEDS_PER_TIMEOUT)
        self._next = float("-inf")
        self._troubles = LimitedLog(log, clock)

    def ready(self, status: str) -> None:
        """Arm the watchdog; not earlier, because loading may take longer than its time-out.

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
                f"{self._device}: refuses a time-out of {self._timeout} s ({error.strerror}); "
                "choose another --watchdog-timeout"
            ) from None
        after = "the time-out of its driver" if granted is None else f"{granted} s"
        self._log(f"{self._device} resets this machine after {after} without an answered sample")
        if (self._number(GET_BOOT_STATUS) or 0) & CARD_RESET:
            self._log(
                f"{self._device} reports that the watchdog caused the last reset of this machine"
            )

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Feed the watchdog, `_FEEDS_PER_TIMEOUT` times per time-out."""
        now = self._clock()
        if self._fd < 0 or now < self._next:
            return
        self._next = now + self._interval
        try:
            os.write(self._fd, _KEEP_ALIVE)
        except OSError as error:
            self._troubles.trouble("feed", f"{self._device}: cannot be fed ({error.strerror})")

    def ended(self) -> None:
        """Disarm the watchdog, unless the kernel's `nowayout` option forbids that."""
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
        """Set the time-out; return what the driver granted, None where it does not say."""
        buffer = bytearray(struct.pack("i", self._timeout))
        try:
            self._ioctl(self._fd, SET_TIMEOUT, buffer, True)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        granted = self._number(GET_TIMEOUT)
        if granted is not None:
            self._interval = min(_LONGEST_FEED, granted / _FEEDS_PER_TIMEOUT)
        return granted

    def _number(self, request: int) -> int | None:
        buffer = bytearray(struct.pack("i", 0))
        try:
            self._ioctl(self._fd, request, buffer, True)
        except OSError:
            return None  # not every driver supports every request
        number: int = struct.unpack("i", buffer)[0]
        return number


def require_usable(device: Path, period: float | None, timeout: int) -> None:
    """Raise GruardError, before anything is loaded, when `device` cannot guard this run.

    period: seconds between samples, None when unknown.
    """
    if not device.is_char_device():
        raise GruardError(
            f"{device}: is no watchdog device; load its kernel module, or omit --watchdog"
        )
    if not os.access(device, os.W_OK):
        raise GruardError(
            f"{device}: this user may not open it; run as root, or give the user's group access"
        )
    if period is not None and 2 * period > timeout:
        raise GruardError(
            f"--watchdog-timeout {timeout}: samples are {period:g} s apart, so a healthy machine "
            f"would be reset; --watchdog suits samples at most {LONGEST_TIMEOUT / 2:g} s apart"
        )


def require_unwatched(environment: Mapping[str, str]) -> None:
    """Raise GruardError when systemd watches this process already."""
    if environment.get("WATCHDOG_USEC"):
        raise GruardError(
            "--watchdog: systemd watches this process already (WatchdogSec=); omit --watchdog "
            "and let systemd own the device (RuntimeWatchdogSec= in /etc/systemd/system.conf)"
        )


def was_watchdog_reset(folder: Path = _SYSFS) -> bool:
    """Return whether a watchdog of this machine reports that it caused the last reset.

    Reading sysfs does not open the device, which would arm it. Not every driver knows: the
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
