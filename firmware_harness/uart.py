"""Talk to a running emulated board over its UART. Every wait has a limit."""

import select
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TypeVar

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.native.engine import RECORD
from edge_runtime.record import Float32
from firmware_harness.building import Built
from firmware_harness.core_records import Array
from firmware_harness.protocol import (
    REFUSALS,
    FrameError,
    Kind,
    Message,
    Responder,
    Status,
    frame,
    read_frame,
    read_status,
)
from firmware_harness.toolchain import emulator_command

PATIENCE = 30.0  # seconds of silence; a healthy board sends several times a second
SECONDS_TO_END = 1  # until an emulator that has closed its line ends
HEAD = 32  # bytes of a record before its masks
NANOSECONDS = 32  # per instruction
STORED_AT_ONCE = 256
Answer = TypeVar("Answer")


class RefusedError(GruardError):
    """The board refuses the sample."""


class EndedError(GruardError):
    """The emulator has ended."""


class Line:
    """The host's end of the UART. heard: number of received messages by kind."""

    def __init__(self, plug: socket.socket, board: str, patience: float, stderr: IO[bytes]) -> None:
        self._plug, self._board, self._patience = plug, board, patience
        self._stderr = stderr
        self._buffer = b""
        self.heard: Counter[int] = Counter()
        self.damaged = 0

    def forget(self) -> None:
        """Drop what has arrived so far."""
        while select.select([self._plug], [], [], 0)[0] and self._plug.recv(1 << 16):
            continue
        self._buffer = b""

    def send(self, message: Message) -> None:
        """Send `message`."""
        self.send_raw(frame(message))

    def send_raw(self, data: bytes) -> None:
        """Send any bytes. Raises GruardError when the board does not read them.

        Incoming bytes are buffered meanwhile: a board does not read while its own bytes block it.
        """
        until = time.monotonic() + self._patience
        while data:
            left = until - time.monotonic()
            talks, listens, _ = select.select([self._plug], [self._plug], [], max(0.0, left))
            if left <= 0:
                raise GruardError(f"{self._board}: takes nothing; it was stopped")
            if talks:
                self._buffer += self._read(until)
            if listens:
                data = data[self._write(data) :]

    def receive(self) -> Message:
        """Return the next message; damaged frames are counted and dropped.

        Raises GruardError when the board stays silent, or the emulator ends.
        """
        until = time.monotonic() + self._patience
        while True:
            data, zero, rest = self._buffer.partition(b"\0")
            if not zero:
                self._buffer += self._read(until)
                continue
            self._buffer = rest
            try:
                message = read_frame(data)
            except ValueError:
                self.damaged += 1
                continue
            self.heard[message.kind] += 1
            return message

    def until(self, wanted: Callable[[Message], Answer | None]) -> Answer:
        """Return the first result of `wanted` that is not None.

        Raises GruardError when no message, or no wanted one, comes in time.
        """
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            answer = wanted(self.receive())
            if answer is not None:
                return answer
        raise GruardError(f"{self._board}: no answer within {self._patience:g} s; it was stopped")

    def ask(self, kind: Kind, body: bytes, answer: Kind) -> bytes:
        """Ask a question without a sample and return the body of the board's `answer`; repeat it
        after an error. Raises GruardError as `until`."""
        kinds = (answer, Kind.TELL_ERROR)
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            self.send(Message(kind, 0, body))
            reply = self.until(lambda message: message if message.kind in kinds else None)
            if reply.kind == answer:
                return reply.body
        raise GruardError(f"{self._board}: no answer within {self._patience:g} s")

    def status(self) -> Status:
        """Ask for the board's status."""
        return read_status(self.ask(Kind.ASK_STATUS, b"", Kind.TELL_STATUS))

    def last_words(self) -> str:
        """Return the emulator's fatal error, or its last line on stderr."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return next((line for line in lines if "fatal" in line), (lines or ["no message"])[-1])

    def _write(self, data: bytes) -> int:
        try:
            return self._plug.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            raise EndedError(f"{self._board}: the emulator has ended") from None

    def _read(self, until: float) -> bytes:
        ready, _, _ = select.select([self._plug], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise GruardError(f"{self._board}: silent for {self._patience:g} s; it was stopped")
        try:
            data = self._plug.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            raise EndedError(f"{self._board}: the emulator has ended")
        return data


@contextmanager
def running(
    built: Built, wait: bool = False, words: Sequence[str] = (), plugs: Sequence[int] = ()
) -> Iterator[tuple[Line, Status]]:
    """Start a board, yield its line and first status, and kill it at the end.

    The board's time follows its instructions, so that a busy host causes no reset. wait: while the
    processor sleeps, time follows the host's clock instead of jumping to the next event. words:
    additional arguments of the emulator, which inherits the file descriptors `plugs`.
    """
    ours, theirs = socket.socketpair()
    pace = f"shift={NANOSECONDS.bit_length() - 1},sleep={'on' if wait else 'off'}"
    plug = f"socket,id=uart,fd={theirs.fileno()}"
    words = ["-icount", pace, "-chardev", plug, "-serial", "chardev:uart", *words]
    with ours, tempfile.TemporaryFile() as stderr:
        with theirs:
            process = subprocess.Popen(
                emulator_command(built.board, built.firmware, words),
                pass_fds=[theirs.fileno(), *plugs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        line = Line(ours, built.board.name, PATIENCE, stderr)
        try:
            yield line, line.until(_status_of)
        except GruardError as error:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
            if process.returncode is None:
                raise
            raise GruardError(f"{error} ({line.last_words()})") from None
        finally:
            process.kill()
            process.wait()


def refuse_without_model(status: Status) -> None:
    """Raise GruardError when the board has refused its bundle."""
    if status.service == Responder.MODEL:
        return
    why = REFUSALS.get(status.refusal, "it does not compute what was validated")
    raise GruardError(f"the board refuses the bundle: {why}")


def replay(line: Line, rows: Float32) -> Array:
    """Send raw `rows` [n, channels] one by one and return their records, also across resets.

    Raises GruardError when a sample is not answered in time.
    """
    return np.array([answer(line, index, row) for index, row in enumerate(rows)], RECORD)


def answer(line: Line, sequence: int, row: Float32) -> Array:
    """Return the record of one sample; ask again when it was lost or the board restarted."""
    body = np.asarray(row, "<f4").tobytes()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        line.send(Message(Kind.ASK_SAMPLE, sequence, body))
        reply = line.until(lambda message: _answer_to(message, sequence))
        if reply.kind == Kind.TELL_RECORD:
            return unpack_record(reply.body, row.size)
    raise GruardError(f"sample {sequence} is not answered within {PATIENCE:g} s")


def try_blob(line: Line, blob: bytes) -> int:
    """Let a test build open `blob`, and return the result: 0 or a gruard_error."""
    for place in range(0, len(blob), STORED_AT_ONCE):
        piece = place.to_bytes(4, "little") + blob[place : place + STORED_AT_ONCE]
        line.ask(Kind.ASK_STORE, piece, Kind.TELL_STATUS)
    result = line.ask(Kind.ASK_TRY, len(blob).to_bytes(4, "little"), Kind.TELL_TRIED)
    return int.from_bytes(result, "little")


def unpack_record(body: bytes, channels: int) -> Array:
    """Unpack a record, whose masks are cut to the words that the channels need, or ValueError."""
    mask = 4 * ((channels + 31) // 32)
    if len(body) != HEAD + 2 * mask:
        raise ValueError(f"a record of {len(body)} bytes")
    room = RECORD["masked"].itemsize
    parts = (body[HEAD : HEAD + mask], body[HEAD + mask :])
    whole = body[:HEAD] + b"".join(part.ljust(room, b"\0") for part in parts)
    return np.frombuffer(whole, RECORD)[0]


def _answer_to(message: Message, sequence: int) -> Message | None:
    """Return `message` if it concerns the sample, else None."""
    if message.kind == Kind.TELL_RECORD and message.sequence == sequence:
        return message
    if message.kind == Kind.TELL_STATUS:  # the board restarted
        return message
    if message.kind == Kind.TELL_GAP and message.sequence == sequence + 1:  # the answer was lost
        return message
    if message.kind == Kind.TELL_ERROR:
        error = int.from_bytes(message.body[:4], "little")
        if error in (FrameError.LENGTH, FrameError.NO_DETECTOR):
            raise RefusedError(f"sample {sequence} is refused: {FrameError(error).name}")
        return message
    return None


def _status_of(message: Message) -> Status | None:
    return read_status(message.body) if message.kind == Kind.TELL_STATUS else None
