"""Addresses of sources, sinks, MQTT brokers and the metrics server, as a user writes them.

A source or sink that is not a file is `KIND:PLACE?OPTION=VALUE&…`; for a broker
`mqtt://HOST:PORT/TOPIC`, or `mqtts://` with TLS. An unknown kind or option is refused with a list
of the known ones. Errors never quote an option's value or a whole address, which may contain a
password.
"""

import os
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from edge_runtime.errors import GruardError, reason
from edge_runtime.files import open_input
from edge_runtime.plain import shown

USER, PASSWORD = "GRUARD_MQTT_USER", "GRUARD_MQTT_PASSWORD"
MQTT = {"mqtt": ("password-file",), "mqtts": ("ca", "password-file")}
"""Kinds of broker addresses, with the options that sources and sinks share."""
SINK_OPTIONS = ("what", "control")
"""Options of a sink's address besides these."""
MISSING = "MQTT needs the package paho-mqtt; install it with pip install 'gruard[mqtt]'"
LOOPBACK = "127.0.0.1"
_BAD_LOGIN = ("Bad user name or password", "Not authorized")
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_THIS_MACHINE = ("localhost", LOOPBACK, "::1")
_OTHERS = 0o007
_LONGEST_LOGIN = 1 << 17
"""Bytes; the protocol allows 64 KiB each for user name and password."""

_KIND = re.compile(r"([a-z][a-z0-9]*):(.*)", re.DOTALL)
_HOST = re.compile(r"//(\[[0-9a-fA-F:.]+\]|[^/:@\[\]]+)(?::([0-9]+))?(?:/(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """A parsed address; %XX is decoded in place and options.

    kind: the part before the first colon. place: a device, a path, or //HOST:PORT/REST.
    """

    kind: str
    place: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The address without its options, for the log."""
        return f"{self.kind}:{self.place}"

    def count(self, option: str, default: int) -> int:
        """Return an option that is a whole number above 0."""
        text = self.options.get(option, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
            raise GruardError(f"{self}: {option} must be a whole number above 0")
        return int(text)


@dataclass(frozen=True)
class Endpoint:
    """A network place: //HOST:PORT/REST."""

    host: str
    port: int
    rest: str


def parse_address(text: str, kinds: Mapping[str, Sequence[str]]) -> Address | None:
    """Parse the address `text`; return None when it names a file.

    kinds: the known kinds, each with its options. Raises GruardError for any other.
    """
    match = _KIND.fullmatch(text)
    if not match:
        return None
    kind, rest = match.groups()
    if kind not in kinds:
        raise GruardError(
            f"'{kind}:' is unknown; there are {', '.join(f'{name}:' for name in kinds)}, "
            f"files and -; write ./{kind}:… for a file of that name"
        )
    place, _, query = rest.partition("?")
    if not place:
        raise GruardError(f"'{kind}:' names nothing; write {kind}:PLACE")
    if place.startswith("//") and "@" in place:
        raise GruardError(
            f"{kind}: an address must not hold a user name or password, since all users of "
            f"this machine see it; for MQTT set {USER} and {PASSWORD}, or use ?password-file=FILE"
        )
    return Address(kind, unquote(place), _options(kind, query, kinds[kind]))


def endpoint(address: Address, default_port: int, rest: str = "…") -> Endpoint:
    """Parse the place of a network address. Raises GruardError; `rest` names what follows there."""
    match = _HOST.fullmatch(address.place)
    port = int(match[2] or default_port) if match and len(match[2] or "") < 6 else 0
    if not match or not 0 < port < 1 << 16 or not _is_host_name(match[1]):
        raise GruardError(f"{address.kind}: is written {address.kind}://HOST:PORT/{rest}")
    return Endpoint(match[1].strip("[]"), port, match[3] or "")


def listening_address(text: str) -> tuple[str, int]:
    """Parse `PORT`, `HOST:PORT` or `[IPV6]:PORT`; the default host is `LOOPBACK`.

    Raises GruardError.
    """
    host, _, port = text.rpartition(":")
    digits = port.isascii() and port.isdecimal() and len(port) < 10
    if not digits or int(port) >= 1 << 16:
        raise GruardError(
            f"--metrics {shown(text, str)}: give a port or ADDRESS:PORT, such as 127.0.0.1:9107"
        )
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


@dataclass(frozen=True)
class BrokerTopic:
    """A topic at a broker. name: the address for messages, without secrets."""

    name: str
    host: str
    port: int
    topic: str

    @property
    def broker(self) -> tuple[str, int]:
        """Host and port; all names of this machine are `localhost`."""
        return "localhost" if self.host in _THIS_MACHINE else self.host, self.port


@dataclass(frozen=True)
class MqttAddress(BrokerTopic):
    """A topic at a broker, with TLS and login.

    tls: None for an unencrypted connection. login: user name and password, None for none.
    options: those that the caller knows, as given.
    """

    tls: ssl.SSLContext | None
    login: tuple[str, str | None] | None = field(repr=False)
    options: Mapping[str, str]


def parse_mqtt_address(
    target: str,
    environment: Mapping[str, str] = os.environ,
    known: Sequence[str] = (),
    subscribing: bool = False,
    deep: bool = False,
) -> MqttAddress:
    """Parse `target`, and read the files that it names.

    known: options besides `ca` and `password-file`.
    subscribing: the topic may end in /+, for all topics below it; deep: or in /#, at any depth.
    Raises GruardError, whose text never shows a password.
    """
    topic, address = _parse_topic(target, known, subscribing, deep)
    options = dict(address.options)
    ca, password_file = options.pop("ca", None), options.pop("password-file", None)
    return MqttAddress(
        **vars(topic),
        tls=_tls(ca) if address.kind == "mqtts" else None,
        login=_login(password_file, environment),
        options=options,
    )


def status_topic(topic: str) -> str:
    """Return the topic where a sink that publishes to `topic` says whether it is online."""
    return f"{topic}/status"


def set_topic(topic: str) -> str:
    """Return the topic where such a sink takes what its owner asks, if it takes it at all."""
    return f"{topic}/set"


def result_topic(topic: str) -> str:
    """Return the topic where it answers that."""
    return f"{topic}/set/result"


def refuse_own_messages(source: str, sinks: Iterable[str]) -> None:
    """Raise GruardError when `source` would read what one of the `sinks` publishes, in a loop.

    Targets that are not MQTT addresses are ignored.
    """
    networks = tuple(f"{scheme}://" for scheme in MQTT)
    if not source.startswith(networks):
        return
    asked, _ = _parse_topic(source, subscribing=True)
    for sink, _ in (_parse_topic(s, SINK_OPTIONS) for s in sinks if s.startswith(networks)):
        for topic in (sink.topic, status_topic(sink.topic), result_topic(sink.topic)):
            if asked.broker == sink.broker and _matches(asked.topic, topic):
                raise GruardError(
                    f"--source {asked.name} would read what --sink {sink.name} publishes to "
                    f"{topic}; give the sink another topic"
                )


def why_refused(paho_reason: str) -> str:
    """Return why a broker refuses the connection, from paho's reason, with the remedy."""
    if paho_reason in _BAD_LOGIN:
        return (
            f"the broker does not take the user name or password; set {USER} and {PASSWORD}, or "
            "use ?password-file=FILE"
        )
    return f"the broker refuses the connection ({paho_reason})"


def why_unreachable(error: BaseException) -> str:
    """Return why a connection failed, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the broker's certificate is not trusted ({error.verify_message}); name the "
            "authority that signed it with ?ca=FILE"
        )
    return f"no connection ({reason(error)})"


def _is_host_name(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _options(kind: str, query: str, known: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in query.split("&") if query else []:
        name, _, value = pair.partition("=")
        if name not in known:
            raise GruardError(
                f"{kind}: has no such option; it has {', '.join(known) or 'none'} "
                "(written ?NAME=VALUE&NAME=VALUE)"
            )
        if not value or name in options:
            raise GruardError(f"{kind}: option {name} needs one value: {name}=VALUE")
        options[name] = unquote(value)
    return options


def _parse_topic(
    target: str, known: Sequence[str] = (), subscribing: bool = False, deep: bool = False
) -> tuple[BrokerTopic, Address]:
    address = parse_address(target, {kind: (*options, *known) for kind, options in MQTT.items()})
    if address is None:
        raise GruardError("a broker is written mqtt://HOST/TOPIC or mqtts://HOST/TOPIC")
    place = endpoint(address, _PORTS[address.kind], "TOPIC")
    name = target.partition("?")[0]
    topic = _topic(place.rest, name, subscribing, deep)
    return BrokerTopic(name, place.host.lower(), place.port, topic), address


def _matches(asked: str, topic: str) -> bool:
    """Whether a subscription to `asked` receives `topic`."""
    levels, wanted = topic.split("/"), asked.split("/")  # a source subscribes to no `#`
    return len(levels) == len(wanted) and all(
        want in ("+", level) for want, level in zip(wanted, levels, strict=True)
    )


def _topic(topic: str, name: str, subscribing: bool, deep: bool) -> str:
    if not topic:
        raise GruardError(f"{name}: no topic is named; write mqtt://HOST/TOPIC")
    fixed = topic.removesuffix("/+") if subscribing else topic
    fixed = topic.removesuffix("/#") if deep and topic.endswith("/#") else fixed
    if not fixed or any(sign in fixed for sign in "+#\0"):
        if deep:
            raise GruardError(f"{name}: write TOPIC, or TOPIC/+ or TOPIC/# for all topics below it")
        if subscribing:
            raise GruardError(f"{name}: write TOPIC, or TOPIC/+ for a channel a topic")
        raise GruardError(f"{name}: a topic to publish to has no wildcards (+ or #)")
    return topic


def _tls(ca: str | None) -> ssl.SSLContext:
    try:
        if ca is not None:
            open_input(ca, "ca= names the PEM file to trust").close()
        return ssl.create_default_context(cafile=ca)
    except FileNotFoundError:
        raise GruardError(f"{ca}: no such file; ca= names the PEM file to trust") from None
    except OSError as error:
        why = "not a certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise GruardError(f"{ca}: {why}; ca= names the PEM file to trust") from None


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
            exposed = os.fstat(stream.fileno()).st_mode & _OTHERS
            text = stream.read(_LONGEST_LOGIN).decode().strip()
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise GruardError(f"{file}: cannot be read ({why})") from None
    user, colon, password = text.partition(":")
    if not user or not colon or "\n" in text:
        raise GruardError(f"{file}: must hold one line USER:PASSWORD")
    if exposed:
        raise GruardError(f"{file}: all users of this machine may read it; chmod o= {file}")
    return user, password
