"""A client of paho-mqtt with a limit on packets. Import it where MQTT is used: paho is optional.

The protocol allows packets of 256 MB, and paho reads a packet as a whole. A client of MQTT 5 tells
the broker the limit; with MQTT 3.1.1 a longer message can only be skipped while it is read.
"""

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from edge_runtime.address import MISSING, MqttAddress
from edge_runtime.errors import GruardError
from edge_runtime.files import all_ready

try:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
except ImportError:
    raise GruardError(MISSING) from None

MQTT_5, MQTT_3 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
LONGEST_PACKET = 1 << 17
"""Bytes: 64 KiB for a message, and as much for its topic."""
_CHUNK = 1 << 16
_AT_ONCE = 16  # chunks of a skipped message that are read before the loop continues
_PUBLISH, _RETAINED = 0x30, 0x01
_LONGEST_HEADER = 5
_WAKES = 1 << 12  # bytes read from the waking socket at once


class BoundedClient(Client):
    """A client for `address`, with its TLS and login.

    Skips messages of more than `LONGEST_PACKET` bytes; any other packet of that size ends the
    connection. on_skipped: called after each skipped message that is not retained.
    """

    def __init__(
        self,
        address: MqttAddress,
        client_id: str = "",
        on_skipped: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, **options)
        if address.tls is not None:
            self.tls_set_context(address.tls)
        if address.login is not None:
            self.username_pw_set(*address.login)
        self._on_skipped = on_skipped
        self._begin()

    def reconnect(self) -> Any:
        """Connect, also for the first time; discard a partly read packet."""
        self._begin()
        return super().reconnect()

    def turn(self, seconds: float, woken: socket.socket | None = None) -> int:
        """Wait for the broker, at most `seconds`, then read and write; return 0 while connected.

        paho's own `loop` does this with select. woken: a socket whose bytes end the wait too; they
        are read.
        """
        connection = self.socket()
        if connection is None:
            return self.loop_misc()
        decrypted = getattr(connection, "pending", lambda: 0)()  # which poll does not see
        wanted = {connection.fileno(): select.POLLIN | self.want_write() * select.POLLOUT}
        if woken is not None:
            wanted[woken.fileno()] = select.POLLIN
        ready = all_ready(wanted, 0.0 if decrypted else seconds)
        if woken is not None and woken.fileno() in ready:
            woken.recv(_WAKES)
        return self.loop_read() or (self.want_write() and self.loop_write()) or self.loop_misc()

    def _begin(self) -> None:
        self._header = bytearray()  # of the next packet, as far as read
        self._given = b""  # a whole header that paho has not read yet
        self._body = self._skip = 0  # bytes for paho to read, and to skip

    def _sock_recv(self, bufsize: int) -> bytes:
        """paho reads packets with this: the header byte by byte, then the body."""
        chunks = _AT_ONCE
        while not self._given and not self._body:
            if not self._skip:
                self._read_header()
            elif chunks:
                self._skip_some()
                chunks -= 1
            else:
                raise BlockingIOError
        if self._given:
            data, self._given = self._given[:bufsize], self._given[bufsize:]
            return data
        data = self._more(min(bufsize, self._body, _CHUNK))
        self._body -= len(data)
        return data

    def _read_header(self) -> None:
        self._header += self._more(1)
        if len(self._header) == 1 or self._header[-1] & 0x80:
            if len(self._header) > _LONGEST_HEADER - 1:
                raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
            return
        length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(self._header[1:]))
        if length <= LONGEST_PACKET:
            self._given, self._body = bytes(self._header), length
            self._header.clear()
        elif self._header[0] & ~_RETAINED == _PUBLISH:
            self._skip = length
        else:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))

    def _skip_some(self) -> None:
        self._skip -= len(self._more(min(self._skip, _CHUNK)))
        if not self._skip:
            retained = self._header[0] & _RETAINED
            self._header.clear()
            if not retained:
                self._on_skipped()

    def _more(self, size: int) -> bytes:
        data: bytes = super()._sock_recv(size)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return data
