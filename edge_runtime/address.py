"""What a user writes for a source or a sink that is no file: `KIND:PLACE?OPTION=VALUE&…`.

Read strictly, in this one place: an unknown kind or option is refused with a list of what there
is. Errors name options, never their values, and never quote a whole address: somebody may have put
a password there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from edge_runtime.errors import GruardError

_KIND = re.compile(r"([a-z][a-z0-9]*):(.*)", re.DOTALL)
_HOST = re.compile(r"//(\[[0-9a-fA-F:.]+\]|[^/:@\[\]]+)(?::([0-9]+))?(?:/(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """An address, taken apart; %XX is decoded in place and options.

    kind: what is before the first colon. place: a device, a path, or //HOST:PORT/REST.
    """

    kind: str
    place: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The address without its options, for the log."""
        return f"{self.kind}:{self.place}"

    def count(self, option: str, default: int) -> int:
        """An option that is a whole number above 0."""
        text = self.options.get(option, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
            raise GruardError(f"{self}: {option} must be a whole number above 0")
        return int(text)


@dataclass(frozen=True)
class Endpoint:
    """The place of something on the network: //HOST:PORT/REST."""

    host: str
    port: int
    rest: str


def parse_address(text: str, kinds: Mapping[str, Sequence[str]]) -> Address | None:
    """The address `text`, or None when it names a file.

    kinds: the kinds there are, each with the options it knows.
    Raises GruardError for a kind or an option that there is not.
    """
    found = _KIND.fullmatch(text)
    if not found:
        return None
    kind, rest = found.groups()
    if kind not in kinds:
        raise GruardError(
            f"'{kind}:' is unknown; there are {', '.join(f'{name}:' for name in kinds)}, "
            f"files and -; write ./{kind}:… for a file of that name"
        )
    place, _, query = rest.partition("?")
    if not place:
        raise GruardError(f"'{kind}:' names nothing; write {kind}:PLACE")
    if place.startswith("//") and "@" in place.split("/")[2]:
        raise GruardError(
            f"{kind}: a user or password does not belong into an address, where everybody on the "
            "machine can read it; set GRUARD_MQTT_USER and GRUARD_MQTT_PASSWORD for mqtt"
        )
    return Address(kind, unquote(place), _options(kind, query, kinds[kind]))


def endpoint(address: Address, default_port: int) -> Endpoint:
    """Host, port and what follows. Raises GruardError when it is not written so."""
    found = _HOST.fullmatch(address.place)
    port = int(found[2] or default_port) if found and len(found[2] or "") < 6 else 0
    if not found or not 0 < port < 1 << 16:
        raise GruardError(f"{address.kind}: is written {address.kind}://HOST:PORT/…")
    return Endpoint(found[1].strip("[]"), port, found[3] or "")


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
