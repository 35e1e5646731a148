"""A client of paho-mqtt that holds no packet above a limit; import it where MQTT is used.

The protocol allows packets of 256 MB, and paho asks the socket for a whole packet at once. MQTT 5
tells the broker the limit; with MQTT 3.1.1 a longer message can only be skipped while it is read.

Where an MQTT broker is, how to be let in, and what to say when that fails.

An address is `mqtt://HOST:PORT/TOPIC?NAME=VALUE`, `mqtts://` with TLS.
"""

import errno
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from paho.mqtt.client import Client

from edge_runtime.errors import GruardError
from edge_runtime.files import all_ready, open_input

USER, PASSWORD = "GRUARD_MQTT_USER", "GRUARD_MQTT_PASSWORD"
MISSING = "MQTT needs the package paho-mqtt; install it with pip install 'gruard[mqtt]'"
_NOT_LET_IN = ("Bad user name or password", "Not authorized")
_EVERYBODY = 0o007
_LONGEST_LOGIN = 1 << 17
"""Bytes; the protocol allows 64 KiB for each of the two."""
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class BrokerTopic:
    """A topic at a broker. name: what to call it in messages; it has no secrets."""

    name: str
    host: str
    port: int
    topic: str

    @property
    def broker(self) -> tuple[str, int]:
        """Host and port; the same for all names of this machine."""
        return "localhost" if self.host in _THIS_MACHINE else self.host, self.port


@dataclass(frozen=True)
class MqttAddress(BrokerTopic):
    """A place, and how to be let in.

    tls: how to prove who the broker is, None for a connection in the clear.
    login: user name and password, None for a broker that lets everybody in.
    parameters: those that the caller knows, as they were given.
    """

    tls: ssl.SSLContext | None
    login: tuple[str, str | None] | None = field(repr=False)
    parameters: Mapping[str, str]


def parse_mqtt_address(
    target: str,
    environment: Mapping[str, str] = os.environ,
    known: Sequence[str] = (),
    subscribing: bool = False,
) -> MqttAddress:
    """Take `target` apart, and read the files that it names.

    known: names of parameters beside `ca` and `password-file`.
    subscribing: the topic may end in /+, for all topics below it.
    Raises GruardError for whatever is wrong in it; the text never shows a password.
    """
    place = _place(target, subscribing)
    parts = urlsplit(target)
    encrypted = parts.scheme == "mqtts"
    parameters = _parameters(
        parts.query, place.name, (*known, "password-file", *["ca"] * encrypted)
    )
    ca, password_file = parameters.pop("ca", None), parameters.pop("password-file", None)
    return MqttAddress(
        **vars(place),
        tls=_tls(ca) if encrypted else None,
        login=_login(password_file, environment),
        parameters=parameters,
    )


def status_topic(topic: str) -> str:
    """Where a sink that publishes to `topic` says whether it is there."""
    return f"{topic}/status"


def refuse_own_messages(source: str, sinks: Iterable[str]) -> None:
    """Raise GruardError when `source` would read what one of the `sinks` publishes, for ever.

    Targets that are no MQTT addresses are left alone.
    """
    networks = tuple(f"{scheme}://" for scheme in _PORTS)
    if not source.startswith(networks):
        return
    asked = _place(source, subscribing=True)
    for sink in (_place(sink) for sink in sinks if sink.startswith(networks)):
        for topic in (sink.topic, status_topic(sink.topic)):
            if asked.broker == sink.broker and _matches(asked.topic, topic):
                raise GruardError(
                    f"--source {asked.name} would read what --sink {sink.name} publishes to "
                    f"{topic}; give the sink another topic"
                )


def why_refused(reason: str) -> str:
    """Why a broker does not let us in, from paho's name for it, and what to do."""
    if reason in _NOT_LET_IN:
        return (
            f"the broker does not take the user name or password; set {USER} and {PASSWORD}, or "
            "use ?password-file=FILE"
        )
    return f"the broker refuses the connection ({reason})"


def why_unreachable(error: BaseException | None) -> str:
    """Why a connection failed, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the broker's certificate is not trusted ({error.verify_message}); name the "
            "authority that signed it with ?ca=FILE"
        )
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return f"no connection ({text})"


def _place(target: str, subscribing: bool = False) -> BrokerTopic:
    if "@" in target:
        raise GruardError(
            "an MQTT address must not hold a user name or password, for every user of this machine "
            f"can read it; set {USER} and {PASSWORD}, or use ?password-file=FILE"
        )
    parts = urlsplit(target)
    name = f"{parts.scheme}://{parts.netloc}{parts.path}"
    host, port = _broker(parts.netloc, name)
    topic = _topic(parts.path, "#" in target, name, subscribing)
    return BrokerTopic(name, host, _PORTS[parts.scheme] if port is None else port, topic)


def _matches(asked: str, topic: str) -> bool:
    """Whether a subscription to `asked` gets what is published to `topic`."""
    levels = topic.split("/")
    for place, level in enumerate(wanted := asked.split("/")):
        if level == "#":
            return True
        if place == len(levels) or level not in ("+", levels[place]):
            return False
    return len(levels) == len(wanted)


def _broker(netloc: str, name: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        host, port = "", None
    if not host or port == 0:
        raise GruardError(f"{name}: no broker is named; write mqtt://HOST/TOPIC or HOST:PORT")
    return host, port


def _topic(path: str, fragment: bool, name: str, subscribing: bool) -> str:
    topic = unquote(path.removeprefix("/"))
    if not topic:
        raise GruardError(f"{name}: no topic is named; write mqtt://HOST/TOPIC")
    fixed = topic.removesuffix("/+") if subscribing else topic
    if fragment or not fixed or any(sign in fixed for sign in "+#\0"):
        if subscribing:
            raise GruardError(f"{name}: write TOPIC, or TOPIC/+ for a channel a topic")
        raise GruardError(f"{name}: a topic to publish to has no wildcards (+ or #)")
    return topic


def _parameters(query: str, name: str, known: Sequence[str]) -> dict[str, str]:
    given = parse_qsl(query, keep_blank_values=True)
    for parameter, value in given:
        if parameter not in known:
            raise GruardError(
                f"{name}: unknown parameter {parameter}; there are {', '.join(sorted(known))}"
                + ("" if "ca" in known else ", and with mqtts:// also ca")
            )
        if not value or [parameter for parameter, _ in given].count(parameter) > 1:
            raise GruardError(f"{name}: parameter {parameter} needs one value")
    return dict(given)


def _tls(ca: str | None) -> ssl.SSLContext:
    try:
        if ca is not None:
            open_input(ca, "ca= names the PEM file to trust").close()
        return ssl.create_default_context(cafile=ca)
    except FileNotFoundError:
        raise GruardError(f"{ca}: no such file; ca= names the PEM file to trust") from None
    except OSError as error:
        reason = "not a certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise GruardError(f"{ca}: {reason}; ca= names the PEM file to trust") from None


def _login(
    password_file: str | None, environment: Mapping[str, str]
) -> tuple[str, str | None] | None:
    user, password = environment.get(USER), environment.get(PASSWORD)
    if password_file is not None:
        return _login_from(password_file)
    if password is not None and user is None:
        raise GruardError(f"{PASSWORD} is set, but {USER} is not")
    return None if user is None else (user, password)


def _login_from(file: str) -> tuple[str, str]:
    try:
        with open_input(file, "it must hold one line USER:PASSWORD") as stream:
            exposed = os.fstat(stream.fileno()).st_mode & _EVERYBODY
            text = stream.read(_LONGEST_LOGIN).decode().strip()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise GruardError(f"{file}: cannot be read ({reason})") from None
    user, colon, password = text.partition(":")
    if not user or not colon or "\n" in text:
        raise GruardError(f"{file}: must hold one line USER:PASSWORD")
    if exposed:
        raise GruardError(f"{file}: everybody on this machine may read it; chmod o= {file}")
    return user, password


LONGEST_PACKET = 1 << 17
"""Bytes: 64 KiB for a message, as much for its topic."""
_CHUNK = 1 << 16
_AT_ONCE = 16  # chunks of a message that is skipped, before the loop has its turn
_PUBLISH, _RETAINED = 0x30, 0x01
_LONGEST_HEADER = 5
_WAKES = 1 << 12  # bytes that woke us, taken at once


class BoundedClient(Client):
    """Skips messages of more than `LONGEST_PACKET` bytes; another such packet is a lost connection.

    on_skipped is called after each skipped message, but not for one that the broker had kept.
    """

    def __init__(
        self, *arguments: Any, on_skipped: Callable[[], None] = lambda: None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._on_skipped = on_skipped
        self._begin()

    def reconnect(self) -> Any:
        """Connect, also for the first time; what was read of a packet before is forgotten."""
        self._begin()
        return super().reconnect()

    def turn(self, seconds: float, woken: socket.socket | None = None) -> int:
        """Wait for the broker, at most `seconds`, and read and write what there is.

        paho's own `loop` does this with select. woken: a socket whose bytes end the wait too; they
        are taken. Returns 0 as long as the connection is there.
        """
        connection = self.socket()
        if connection is None:
            return self.loop_misc()
        decrypted = getattr(connection, "pending", lambda: 0)()  # which poll does not see
        wanted = {connection.fileno(): select.POLLIN | self.want_write() * select.POLLOUT}
        if woken is not None:
            wanted[woken.fileno()] = select.POLLIN
        found = all_ready(wanted, 0.0 if decrypted else seconds)
        if woken is not None and woken.fileno() in found:
            woken.recv(_WAKES)
        return self.loop_read() or (self.want_write() and self.loop_write()) or self.loop_misc()

    def _begin(self) -> None:
        self._header = bytearray()  # of the next packet, as far as it was read
        self._given = b""  # a whole header that paho has not taken yet
        self._body = self._skip = 0  # bytes that paho has to read, or that nobody wants

    def _sock_recv(self, bufsize: int) -> bytes:
        """What paho reads packets with: the header byte by byte, then the body."""
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
