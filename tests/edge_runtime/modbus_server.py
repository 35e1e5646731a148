"""A Modbus/TCP device for tests, a process of its own: `modbus_server.py PORT`.

Unit 1 has holding and input registers 0 to 9, both with the numbers of `REGISTERS`, and refuses all
others. Prints a line when it listens.
"""

import asyncio
import sys

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

# 500, -2, the float32 1.5 with the high word first and 1.5 with the low word first.
REGISTERS = [500, 0xFFFE, 0x3FC0, 0, 0, 0x3FC0, 0, 0, 0, 0]


async def main(port: int) -> None:
    device = SimDevice(1, [SimData(0, values=REGISTERS, datatype=DataType.REGISTERS)])
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
