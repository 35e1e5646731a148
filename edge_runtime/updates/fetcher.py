"""Downloads over HTTP that can neither last for ever nor fill the disk; needs the package tuf.

A server, or whoever is between, may send too much, too little or nothing, one byte a minute, or
something else. So each window of seconds has to bring some bytes, an alarm of the system ends the
wait wherever it is (name, handshake, header or body), and lengths are limits. Whether the bytes are
the right ones is for TUF to say.
"""

from __future__ import annotations

import http.client
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from edge_runtime import __version__
from edge_runtime.errors import GruardError, reason
from edge_runtime.updates.published import MISSING

try:
    from tuf.api.exceptions import (
        DownloadError,
        DownloadHTTPError,
        DownloadLengthMismatchError,
        SlowRetrievalError,
    )
    from tuf.ngclient.fetcher import FetcherInterface
except ImportError:
    raise GruardError(MISSING) from None

WINDOW, LEAST = 30.0, 1024
"""Each window of seconds has to bring so many bytes, or the end."""
_CHUNK = 1 << 14  # bytes
_PARTIAL, _UNSATISFIABLE = 206, 416


class Fetcher(FetcherInterface):
    """Downloads for `tuf.ngclient`, and archives that are continued where they were interrupted.

    rate: bytes a second at most, 0 for any. window: seconds, see `WINDOW`. Only in the main thread,
    where signals arrive.
    """

    def __init__(
        self,
        rate: float = 0.0,
        window: float = WINDOW,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._window, self._clock, self._sleep = rate, window, clock, sleep

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._pieces(self._answer(url, 0))

    def download(self, url: str, file: Path, length: int) -> None:
        """Download `url` into `file`, of `length` bytes; continue what an earlier attempt has left.

        A server that knows no ranges sends everything again. What was downloaded stays when this
        fails, unless there is too much. Raises DownloadError, OSError.
        """
        there = file.stat().st_size if file.exists() else 0
        if there == length:
            return
        if there > length:
            there = 0
        answer = self._answer(url, there)
        continues = there and answer.status == _PARTIAL and _begins_at(answer, there)
        with file.open("ab" if continues else "wb") as stream:
            got = there if continues else 0
            for piece in self._pieces(answer):
                got += len(piece)
                if got > length:
                    stream.truncate(0)
                    raise DownloadLengthMismatchError(f"more than {length} bytes")
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        if got < length:
            raise DownloadError(f"the connection ended after {got} of {length} bytes")

    def _answer(self, url: str, start: int) -> http.client.HTTPResponse:
        """Send the request, for the bytes from `start` on; return the answer up to its body."""
        headers = {"User-Agent": f"gruard/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        request = urllib.request.Request(url, headers=headers)
        try:
            with _alarm(self._window):
                answer: http.client.HTTPResponse = urllib.request.urlopen(
                    request, timeout=self._window
                )
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _UNSATISFIABLE and start:
                return self._answer(url, 0)
            raise DownloadHTTPError(f"HTTP status {error.code}", error.code) from None
        except TimeoutError:
            raise SlowRetrievalError("no answer") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(why, TimeoutError):
                raise SlowRetrievalError("no answer") from None
            raise DownloadError(reason(why) if isinstance(why, BaseException) else why) from None
        return answer

    def _pieces(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        """Yield the body of `answer`, no faster than the rate and no slower than the window."""
        size = min(_CHUNK, max(int(self._rate / 4), 1)) if self._rate else _CHUNK
        began, total = self._clock(), 0
        with answer:
            while data := self._piece(answer, size):
                yield data
                total += len(data)
                if self._rate:
                    self._sleep(max(0.0, began + total / self._rate - self._clock()))

    def _piece(self, answer: http.client.HTTPResponse, size: int) -> bytes:
        """Return the next bytes, at least `LEAST` of them before the end."""
        data = b""
        try:
            with _alarm(self._window):
                while len(data) < min(size, LEAST) and (more := answer.read1(size - len(data))):
                    data += more
        except TimeoutError:
            raise SlowRetrievalError("too slow") from None
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(reason(error)) from None
        return data


def _begins_at(answer: http.client.HTTPResponse, start: int) -> bool:
    return (answer.headers["Content-Range"] or "").startswith(f"bytes {start}-")


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds, whatever it waits for."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again, since one exception may be lost in a callback of the garbage collector.
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
