"""Control a running emulated board: stop it, read and change its memory, save and restore it."""

import json
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edge_runtime.errors import GruardError
from firmware_harness import uart
from firmware_harness.building import Built
from firmware_harness.toolchain import call

_DISK = "64M"  # size limit of the snapshots; the file grows as needed
_LIMIT = 30.0  # seconds for an answer of the emulator


class Debugger:
    """The part of GDB's remote protocol that breakpoints need."""

    def __init__(self, plug: socket.socket) -> None:
        self._file = plug.makefile("rwb")

    def run_to(self, addresses: Iterable[int], go_on: Callable[[], None]) -> None:
        """Call `go_on` and wait until the stopped machine reaches one of `addresses`."""
        breakpoints = [f"0,{address:x},2" for address in addresses]
        with _in_time():
            for each in breakpoints:
                self._ask("Z" + each)
            go_on()
            while not self._packet().startswith("T05"):  # other packets report our own stops
                continue
            for each in breakpoints:
                self._ask("z" + each)

    def _ask(self, question: str) -> str:
        self._file.write(f"${question}#{sum(question.encode()) % 256:02x}".encode())
        self._file.flush()
        while (answer := self._packet()).startswith("T"):
            continue
        if answer.startswith("E") or not answer:
            raise GruardError(f"the emulator's debugger does not do {question!r}")
        return answer

    def _packet(self) -> str:
        while (byte := self._file.read(1)) != b"$":
            if not byte:
                raise OSError
        data = b"".join(iter(lambda: self._file.read(1), b"#"))
        self._file.read(2)  # the checksum; a socket pair loses no bytes
        self._file.write(b"+")
        self._file.flush()
        return data.decode()


class Live:
    """line: the board's UART. The methods control the whole machine: its memory and its time."""

    def __init__(
        self,
        line: uart.Line,
        access: socket.socket,
        monitor: socket.socket,
        debugger: Debugger,
    ) -> None:
        self.line, self._debugger = line, debugger
        self._access, self._monitor = (end.makefile("rw") for end in (access, monitor))
        self._monitor.readline()  # a greeting
        self._command("qmp_capabilities")

    def stop(self) -> None:
        """Stop the machine wherever it is."""
        self._command("stop")

    def go_on(self) -> None:
        """Let the machine run again."""
        self._command("cont")

    def go_on_to(self, addresses: Iterable[int], before: Callable[[], None]) -> int:
        """Call `before`, run the stopped machine until it reaches one of `addresses`, and return
        that address; the machine is stopped there."""

        def go_on() -> None:
            before()
            self.go_on()

        self._debugger.run_to(addresses, go_on)
        return self.registers()["R15"]

    def read(self, address: int, size: int) -> bytes:
        """Read bytes of its memory."""
        return bytes.fromhex(self._ask(f"read {address:#x} {size}").removeprefix("0x"))

    def flip(self, address: int, bit: int) -> None:
        """Flip one bit of its memory; only while it is stopped."""
        byte = self.read(address, 1)[0] ^ 1 << bit
        self._ask(f"write {address:#x} 1 {byte:#04x}")

    def registers(self) -> dict[str, int]:
        """Read R00 to R15 and XPSR."""
        words = self._monitor_word("info registers").split()
        pairs = (word.split("=") for word in words if word.count("=") == 1)
        return {name: int(value, 16) for name, value in pairs if name[0] in "RX"}

    def save(self, name: str) -> None:
        """Save the state of the whole machine."""
        self._monitor_word(f"savevm {name}", quiet=True)

    def restore(self, name: str) -> None:
        """Restore a saved state and stop there; drop what the board was sending."""
        self.stop()  # otherwise it would run on at once
        self._monitor_word(f"loadvm {name}", quiet=True)
        self.line.forget()

    def _ask(self, question: str) -> str:
        with _in_time():
            self._access.write(question + "\n")
            self._access.flush()
            kind, _, answer = self._access.readline().strip().partition(" ")
        if kind != "OK":
            raise GruardError(f"the emulator does not do {question!r}: {kind} {answer}".strip())
        return answer

    def _monitor_word(self, words: str, quiet: bool = False) -> str:
        answer = str(self._command("human-monitor-command", {"command-line": words}))
        if quiet and answer.strip():
            raise GruardError(f"the emulator does not do {words!r}: {answer.strip()}")
        return answer

    def _command(self, name: str, arguments: dict[str, str] | None = None) -> Any:
        command = {"execute": name, **({"arguments": arguments} if arguments else {})}
        with _in_time():
            self._monitor.write(json.dumps(command) + "\n")
            self._monitor.flush()
            answer = next(
                (found for found in map(json.loads, self._monitor) if "event" not in found), None
            )
        if answer is None:
            raise uart.EndedError("the emulator has ended")
        if "error" in answer:
            raise GruardError(f"the emulator does not do {name!r}: {answer['error']['desc']}")
        return answer["return"]


@contextmanager
def live(built: Built) -> Iterator[Live]:
    """Start a board; GruardError when it refuses its bundle."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gruard-")))
        call("qemu-img", ["create", "-q", "-f", "qcow2", "kept", _DISK], folder)
        access, access_plug = _pair(stack)
        monitor, monitor_plug = _pair(stack)
        debugger, debugger_plug = _pair(stack)
        words = [
            "-chardev", f"socket,id=access,fd={access_plug.fileno()}",
            "-object", "qtest,id=live,chardev=access,log=/dev/null",
            "-chardev", f"socket,id=control,fd={monitor_plug.fileno()}",
            "-mon", "chardev=control,mode=control",
            "-chardev", f"socket,id=debugger,fd={debugger_plug.fileno()}",
            "-gdb", "chardev:debugger",
            "-drive", f"if=none,format=qcow2,file={folder / 'kept'}",
        ]  # fmt: skip
        plugs = [plug.fileno() for plug in (access_plug, monitor_plug, debugger_plug)]
        # Without `wait`, time would jump to the next timer, the watchdog's, while it is stopped.
        board = uart.running(built, wait=True, words=words, plugs=plugs)
        line, status = stack.enter_context(board)
        for plug in (access_plug, monitor_plug, debugger_plug):
            plug.close()  # so that reading fails when the emulator ends
        uart.refuse_without_model(status)
        yield Live(line, access, monitor, Debugger(debugger))


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise GruardError(f"the emulator does not answer within {_LIMIT:g} s") from None
    except OSError:
        raise uart.EndedError("the emulator has ended") from None


def _pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        stack.enter_context(end)
    ours.settimeout(_LIMIT)
    return ours, theirs
