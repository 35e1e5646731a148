"""An emulated board in our hands while it runs: stopped, looked into, changed, and set back."""

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

_DISK = "64M"  # of snapshots; the file is as large as what is in it
_LIMIT = 30.0  # seconds for an answer of the emulator


class Debugger:
    """As much of GDB's remote protocol as breakpoints need."""

    def __init__(self, plug: socket.socket) -> None:
        self._file = plug.makefile("rwb")

    def run_to(self, addresses: Iterable[int], go_on: Callable[[], None]) -> None:
        """After `go_on` wait until the machine, which is held, comes to one of `addresses`."""
        breakpoints = [f"0,{address:x},2" for address in addresses]
        with _in_time():
            for each in breakpoints:
                self._ask("Z" + each)
            go_on()
            while not self._packet().startswith("T05"):  # others tell of stops that we know of
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
        self._file.read(2)  # a checksum, over a line that loses nothing
        self._file.write(b"+")
        self._file.flush()
        return data.decode()


class Live:
    """line: the board's UART. The rest works on the whole machine: its memory and its time."""

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
        """Hold the machine, wherever it is."""
        self._command("stop")

    def go_on(self) -> None:
        """Let it run again."""
        self._command("cont")

    def go_on_to(self, addresses: Iterable[int], before: Callable[[], None]) -> int:
        """Do `before` and let the held machine run until it comes to one of `addresses`, which is
        the answer; it is held there."""

        def go_on() -> None:
            before()
            self.go_on()

        self._debugger.run_to(addresses, go_on)
        return self.registers()["R15"]

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory."""
        return bytes.fromhex(self._ask(f"read {address:#x} {size}").removeprefix("0x"))

    def flip(self, address: int, bit: int) -> None:
        """Turn one bit of its memory round; only while it is held."""
        byte = self.read(address, 1)[0] ^ 1 << bit
        self._ask(f"write {address:#x} 1 {byte:#04x}")

    def registers(self) -> dict[str, int]:
        """R00 to R15 and XPSR."""
        words = self._monitor_word("info registers").split()
        pairs = (word.split("=") for word in words if word.count("=") == 1)
        return {name: int(value, 16) for name, value in pairs if name[0] in "RX"}

    def save(self, name: str) -> None:
        """Keep all of the machine as it is."""
        self._monitor_word(f"savevm {name}", quiet=True)

    def restore(self, name: str) -> None:
        """The machine as it was kept, held; what it was about to say is forgotten."""
        self.stop()  # a machine that runs would go on at once
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
        told = str(self._command("human-monitor-command", {"command-line": words}))
        if quiet and told.strip():
            raise GruardError(f"the emulator does not do {words!r}: {told.strip()}")
        return told

    def _command(self, name: str, arguments: dict[str, str] | None = None) -> Any:
        told = {"execute": name, **({"arguments": arguments} if arguments else {})}
        with _in_time():
            self._monitor.write(json.dumps(told) + "\n")
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
    """A board that has just been switched on; GruardError when it has refused its bundle."""
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
        # With `wait` time does not leap to the next timer, the watchdog's, where it is held.
        board = uart.running(built, wait=True, words=words, plugs=plugs)
        line, status = stack.enter_context(board)
        for plug in (access_plug, monitor_plug, debugger_plug):
            plug.close()  # so that we notice when the emulator ends
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
