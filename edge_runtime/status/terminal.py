"""A terminal that is borrowed for a live view, and given back as it was."""

import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from edge_runtime.readiness import all_ready
from edge_runtime.status.screen import Line, Style

_CODES: dict[Style, str] = {
    "plain": "", "bold": "1", "dim": "2", "good": "32", "bad": "31", "warn": "33",
}  # fmt: skip
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[0m\x1b[?25h\x1b[?1049l"
_QUIT = b"qQ\x03\x04"


def size() -> tuple[int, int]:
    """Columns and rows at the moment."""
    found = os.get_terminal_size(sys.stdout.fileno())  # not shutil's, which believes $COLUMNS
    return found.columns or 80, found.lines or 24


class Terminal:
    """Draws whole screens and waits for a key. Only within `borrowed`."""

    def __init__(self, keys: int, resized: socket.socket, coloured: bool) -> None:
        self._keys, self._resized, self._coloured = keys, resized, coloured

    def draw(self, lines: Sequence[Line]) -> None:
        """Replace what is shown."""
        # Erased before and not after its text: at the last column that would take a letter away.
        rows = "\r\n".join(f"\x1b[K{self._styled(line)}" for line in lines)
        sys.stdout.write(f"\x1b[H{rows}")
        sys.stdout.flush()

    def wait(self, seconds: float) -> bool:
        """Wait for a key or a new size; True when the viewer wants to leave."""
        woken = self._resized.fileno()
        ready = all_ready({self._keys: select.POLLIN, woken: select.POLLIN}, seconds)
        if woken in ready:
            self._resized.recv(64)
        if self._keys not in ready:
            return False
        pressed = os.read(self._keys, 64)
        return not pressed or any(key in _QUIT for key in pressed)

    def _styled(self, line: Line) -> str:
        code = _CODES[line.style] if self._coloured else ""
        return f"\x1b[{code}m{line.text}\x1b[0m" if code else line.text


@contextmanager
def borrowed(coloured: bool) -> Iterator[Terminal]:
    """The terminal without echo and cursor, on its second screen; restored on the way out."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    waker, resized = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGWINCH, lambda number, frame: None)  # only to wake `wait`
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a shell must not get the terminal like this
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    try:
        tty.setcbreak(keys)
        sys.stdout.write(_ENTER)
        yield Terminal(keys, resized, coloured)
    finally:
        signal.set_wakeup_fd(-1)
        with suppress(OSError, termios.error):  # it may have gone
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        waker.close()
        resized.close()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
