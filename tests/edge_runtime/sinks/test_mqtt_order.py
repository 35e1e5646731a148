"""Races that no real broker shows on demand: paho's callbacks, called by hand."""

from paho.mqtt.client import ConnectFlags, DisconnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_runtime.address import parse_mqtt_address
from edge_runtime.sinks.mqtt import WINDOW, Mqtt

DONE = ReasonCode(PacketTypes.PUBACK, "Success")


class ByHand:
    """A carrier without a broker."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.carrier = Mqtt(parse_mqtt_address("mqtt://localhost/a", {}), self.log.append)

    def connect(self) -> None:
        success = ReasonCode(PacketTypes.CONNACK, "Success")
        self.carrier._on_connect(self.carrier._client, None, ConnectFlags(False), success, None)

    def break_off(self) -> None:
        broken = ReasonCode(PacketTypes.DISCONNECT, "Unspecified error")
        flags = DisconnectFlags(False)
        self.carrier._on_disconnect(self.carrier._client, None, flags, broken, None)

    def confirm(self, number: int) -> None:
        properties = Properties(PacketTypes.PUBACK)
        self.carrier._on_publish(self.carrier._client, None, number, DONE, properties)


def test_after_a_break_nothing_new_is_sent_before_what_was_under_way_is_confirmed() -> None:
    hand = ByHand()
    assert hand.carrier.room() == 0
    hand.connect()
    assert hand.carrier.room() == WINDOW
    hand.carrier.send(b"1", 1)
    hand.carrier.send(b"2", 2)
    hand.break_off()
    assert hand.carrier.room() == 0
    hand.connect()
    first, second = hand.carrier._under_way
    assert hand.carrier.room() == 0
    hand.confirm(first)
    assert hand.carrier.room() == 0 and hand.carrier.oldest() == 2
    hand.confirm(second)
    assert hand.carrier.room() == WINDOW and hand.carrier.oldest() is None


def test_a_confirmation_that_comes_before_its_number_is_known() -> None:
    hand = ByHand()
    hand.connect()
    greeting = next(iter(hand.carrier._unnumbered))
    hand.confirm(greeting)
    hand.confirm(greeting + 1)
    hand.carrier.send(b"1", 1)
    assert hand.carrier.oldest() is None and hand.carrier.room() == WINDOW
    assert not hand.carrier._early and not hand.carrier._unnumbered


def test_a_trouble_is_told_once() -> None:
    hand = ByHand()
    for _ in range(3):
        hand.carrier._log_trouble("unreachable", "no connection")
    hand.connect()
    hand.break_off()
    assert len(hand.log) == 3 and "the connection broke" in hand.log[-1]
