"""An MQTT broker as the user names it: `mqtt://host:1883/topic`, `mqtts://` with TLS.

Credentials come from the environment (GRUARD_MQTT_USER, GRUARD_MQTT_PASSWORD) or the password from
a file, never from the address, which every process list and log may show.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.address import Address, endpoint
from edge_runtime.errors import GruardError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

MQTT_OPTIONS = ("ca", "password-file")
USER, PASSWORD = "GRUARD_MQTT_USER", "GRUARD_MQTT_PASSWORD"
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_KEEP_ALIVE = 15  # seconds after which a broker that says nothing is asked whether it is there
_LONGEST_PASSWORD = 1 << 16
_MISSING = "MQTT needs the package paho-mqtt; install it with pip install 'gruard[mqtt]'"


@dataclass(frozen=True)
class MqttAddress:
    """A broker, a topic there, and how to be let in. ca: file of the authority of its certificate.

    The password is not in its representation.
    """

    name: str
    host: str
    port: int
    topic: str
    tls: bool
    ca: Path | None
    user: str | None
    password: str | None = field(repr=False)


def mqtt_address(address: Address, environ: Mapping[str, str] = os.environ) -> MqttAddress:
    """What `address` and the environment say. Raises GruardError when they do not go together."""
    place = endpoint(address, _PORTS[address.kind])
    if not place.rest:
        raise GruardError(f"{address}: names no topic; write {address.kind}://HOST:PORT/TOPIC")
    ca, tls = address.options.get("ca"), address.kind == "mqtts"
    if ca and not tls:
        raise GruardError(f"{address}: ca is for mqtts://, which is encrypted")
    user, password = environ.get(USER), _password(address, environ)
    if password is not None and user is None:
        raise GruardError(f"{address}: there is a password but no user; set {USER}")
    path = Path(ca) if ca else None
    return MqttAddress(str(address), place.host, place.port, place.rest, tls, path, user, password)


def new_client(address: MqttAddress) -> Client:
    """A client that is let in where `address` says, not connected yet.

    Raises GruardError without the package, or when the authority's file cannot be used.
    """
    import ssl

    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError:
        raise GruardError(_MISSING) from None
    client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
    client.disable_logger()  # what it would say is told by us
    if address.tls:
        try:
            client.tls_set_context(ssl.create_default_context(cafile=address.ca))
        except OSError as error:
            raise GruardError(
                f"{address.ca}: not a certificate in PEM ({error.strerror or error})"
            ) from None
    if address.user is not None:
        client.username_pw_set(address.user, address.password)
    return client


def connect(client: Client, address: MqttAddress) -> None:
    """Open the connection and send the request. Raises OSError that says what is wrong."""
    import ssl

    try:
        client.connect(address.host, address.port, _KEEP_ALIVE)
    except ssl.SSLCertVerificationError as error:
        raise OSError(
            f"the broker's certificate is not trusted ({error.verify_message}); "
            "name the authority's file with ?ca=FILE"
        ) from None
    except (ssl.SSLError, ConnectionResetError) as error:
        if not address.tls:
            raise
        raise OSError(f"no TLS on this port ({error.strerror or error})") from None
    except ValueError:
        raise OSError("the host's name cannot be used") from None


def refusal(reason: str) -> str:
    """A broker's reason not to let somebody in, with what to do about it."""
    hint = f"; check {USER} and {PASSWORD}" if "uthori" in reason or "assword" in reason else ""
    return f"the broker refuses: {reason}{hint}"


def _password(address: Address, environ: Mapping[str, str]) -> str | None:
    name = address.options.get("password-file")
    if name is None:
        return environ.get(PASSWORD)
    try:
        with Path(name).open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o007:
                raise GruardError(f"{name}: everybody may read this password; chmod o= {name}")
            return file.read(_LONGEST_PASSWORD).decode().strip("\r\n")
    except OSError as error:
        raise GruardError(f"{name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise GruardError(f"{name}: is not text; write the password alone") from None
