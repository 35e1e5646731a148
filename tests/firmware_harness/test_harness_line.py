"""The host's end of the UART, with a peer that does as it likes."""

import io
import socket
from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from edge_runtime.errors import GruardError
from firmware_harness.protocol import Kind, Message, frame
from firmware_harness.uart import EndedError, Line

MORE_THAN_A_SOCKET_HOLDS = 1 << 23
GAP = frame(Message(Kind.TELL_GAP, 7, b""))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def started(peer: Callable[[], None]) -> Thread:
    thread = Thread(target=peer, daemon=True)
    thread.start()
    return thread


def test_a_board_that_talks_first_is_heard_while_it_is_spoken_to(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    gaps = MORE_THAN_A_SOCKET_HOLDS // len(GAP)
    heard = list[bytes]()

    def peer() -> None:
        theirs.sendall(GAP * gaps)
        while data := theirs.recv(1 << 16):
            heard.append(data)

    thread = started(peer)
    line = Line(ours, "board", 60, io.BytesIO())
    said = bytes(MORE_THAN_A_SOCKET_HOLDS)
    line.send_raw(said)
    assert all(line.receive() == Message(Kind.TELL_GAP, 7, b"") for _ in range(3))
    ours.shutdown(socket.SHUT_WR)
    thread.join()
    assert b"".join(heard) == said and line.heard[Kind.TELL_GAP] == 3


def test_a_board_that_only_talks_is_given_up(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends

    def peer() -> None:
        while True:
            try:
                theirs.sendall(GAP * 1000)
            except OSError:
                return

    started(peer)
    line = Line(ours, "board", 0.5, io.BytesIO())
    with pytest.raises(GruardError, match="takes nothing"):
        line.send_raw(bytes(MORE_THAN_A_SOCKET_HOLDS))


def test_a_board_that_has_ended_is_told(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()
    line = Line(ours, "board", 60, io.BytesIO())
    with pytest.raises(EndedError, match="board: the emulator has ended"):
        line.send_raw(b"anything")
