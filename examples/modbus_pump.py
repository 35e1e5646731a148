"""A pump that answers over Modbus/TCP, to try gruard without a machine.

    python3 examples/modbus_pump.py --port 1502 --speed 100 --fault leak@20000 --lose 0.02

Five input registers of unit 1, all int16: 30001 speed in 1/min, 30002 flow in 0.01 l/s, 30003
pressure in 0.01 bar, 30004 current in 0.01 A, 30005 temperature in 0.01 °C. Register 30006 counts
seconds and 30007 is always 7, as such machines have them. One row is one second of the pump, so
--speed 100 makes a day pass in 15 minutes.
"""

import argparse
import math
import random
import socketserver
import struct
import time

REGISTERS = 7
READ_INPUT, READ_HOLDING = 4, 3
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS = 1, 2
SHIFT, PAUSE = 3600, 600
"""Seconds of one set-point, and of standing still after four of them."""
RAMP = 2.0
"""Change of the speed in 1/min per second, at most."""


class Pump:
    """Computes the registers of each second in turn, so the same seed gives the same pump."""

    def __init__(self, speed: float, leak: int | None, seed: int) -> None:
        self._speed, self._leak, self._random = speed, leak, random.Random(seed)
        self._begun, self._row = time.monotonic(), -1
        self._turns, self._flow, self._heat = 0.0, 0.0, 20.0
        self.registers = [0] * REGISTERS

    def now(self) -> list[int]:
        """Return the registers of the present second."""
        row = int((time.monotonic() - self._begun) * self._speed)
        while self._row < row:
            self._row += 1
            self.registers = self._next(self._row)
        return self.registers

    def _next(self, row: int) -> list[int]:
        cycle = row % (4 * SHIFT + PAUSE)
        wanted = 0.0 if cycle >= 4 * SHIFT else (1450.0, 1200.0, 1450.0, 900.0)[cycle // SHIFT]
        leak = self._leak is not None and row >= self._leak
        noise = self._random.gauss
        self._turns += max(-RAMP, min(wanted - self._turns, RAMP))
        self._flow += 0.05 * (self._turns / 145.0 - self._flow)
        pressure = 0.03 * self._flow**2 * (0.4 if leak else 1.0)
        flow = self._flow * (1.5 if leak else 1.0)
        current = 0.4 + 0.5 * self._flow
        room = 20.0 + 3.0 * math.sin(2 * math.pi * row / 86400.0)
        self._heat += 0.002 * (room + 2.2 * current - self._heat)
        readings = (
            self._turns + noise(0, 2) * (self._turns > 0),
            100 * (flow + noise(0, 0.03)),
            100 * (pressure + noise(0, 0.02)),
            100 * (current + noise(0, 0.02)),
            100 * (self._heat + noise(0, 0.05)),
            row % 32768,
            7,
        )
        return [round(reading) & 0xFFFF for reading in readings]


class Answers(socketserver.BaseRequestHandler):
    """One connection: requests by the Modbus messaging guide, some of them left unanswered."""

    server: "Server"

    def handle(self) -> None:
        while len(head := self._take(8)) == 8:
            number, _, length, unit, function = struct.unpack(">HHHBB", head)
            body = self._take(length - 2)
            if self.server.loses():
                continue
            if function not in (READ_INPUT, READ_HOLDING):
                answer = bytes([function | 0x80, ILLEGAL_FUNCTION])
            else:
                answer = self._registers(function, *struct.unpack(">HH", body))
            self.request.sendall(struct.pack(">HHHB", number, 0, len(answer) + 1, unit) + answer)

    def _registers(self, function: int, first: int, count: int) -> bytes:
        if not count or first + count > REGISTERS:
            return bytes([function | 0x80, ILLEGAL_ADDRESS])
        words = self.server.pump.now()[first : first + count]
        return struct.pack(f">BB{count}H", function, 2 * count, *words)

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self.request.recv(size - len(data))):
            data += piece
        return data


class Server(socketserver.ThreadingTCPServer):
    """Serves one pump."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int, pump: Pump, lost: float) -> None:
        super().__init__(("127.0.0.1", port), Answers)
        self.pump, self._lost, self._chance = pump, lost, random.Random(1)

    def loses(self) -> bool:
        """Return whether the next request stays without an answer."""
        return self._chance.random() < self._lost


def leak_row(text: str) -> int:
    """Return the row of `leak@ROW`."""
    kind, _, row = text.partition("@")
    if kind != "leak" or not row.isdecimal():
        raise argparse.ArgumentTypeError("write leak@ROW, as leak@20000")
    return int(row)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=1502)
    parser.add_argument("--speed", type=float, default=1.0, help="seconds of the pump per second")
    parser.add_argument("--fault", type=leak_row, metavar="leak@ROW", help="leaks from ROW on")
    parser.add_argument("--lose", type=float, default=0.0, help="share of lost answers, as 0.02")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pump = Pump(options.speed, options.fault, options.seed)
    with Server(options.port, pump, options.lose) as server:
        print(f"listens on 127.0.0.1:{server.server_address[1]}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")


if __name__ == "__main__":
    main()
