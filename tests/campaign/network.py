"""Faults of the network: a real broker that is down, slow, or killed.

A listener with a persistent session must receive every record in the end, in order.
"""

import contextlib
import itertools
import json
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.apparatus.mosquitto import Broker, Listener
from tests.campaign.fault import Fault, Happened, Json, expect
from tests.campaign.lab import Lab, Run

START = 200
AWAY = 400  # samples while the broker is down
TOPIC = "gruard"
_KEPT = "allow_anonymous true\npersistence true\npersistence_location {}/\n"


@dataclass(frozen=True)
class Network:
    """A broker with a listener, and the options of a run that keeps a journal and sends all."""

    broker: Broker
    listener: Listener
    options: tuple[str, ...]

    def heard(self) -> list[Json]:
        """Return what the listener has received so far, each record once."""
        texts = dict.fromkeys(self.listener.on(TOPIC))
        return [json.loads(text) for text in texts]

    def await_index(self, index: int) -> None:
        """Wait until the listener has the record of `index`."""
        part, messages = f'"index":{index},'.encode(), self.listener.messages
        self.listener.wait_for(lambda: any(part in text for _, text, _ in messages[-9:]))


@contextlib.contextmanager
def _network(lab: Lab, journal: bool = True) -> Iterator[Network]:
    folder = Path(tempfile.mkdtemp(prefix="network-", dir=lab.scratch))
    broker = Broker(folder, _KEPT.format(folder))
    listener = Listener(broker.port, session="listener")
    options = ("--sink", broker.address(f"{TOPIC}?what=all"), "--sink", "-")
    kept = ("--journal", str(folder / "journal")) if journal else ()
    try:
        yield Network(broker, listener, (*options, *kept))
    finally:
        listener.stop()
        broker.kill()


def _feed(run: Run, count: int) -> None:
    """Feed `count` more rows, as fast as they are answered."""
    rows = itertools.cycle(run.lab.rows)
    for row in itertools.islice(rows, count):
        run.feed(row[None])


def _check_heard(network: Network, runs: list[Run]) -> None:
    """Check that the listener received every record of every run, in order."""
    heard = [(record.pop("run"), record) for record in network.heard()]
    for name, run in zip(dict.fromkeys(name for name, _ in heard), runs, strict=True):
        got = [record for of, record in heard if of == name]
        missing = len(run.records) - len(got)
        expect(got == run.records, f"the listener misses {missing} of {len(run.records)}")


def _down(lab: Lab) -> Happened:
    with _network(lab) as network, lab.run(*network.options) as run:
        _feed(run, START)
        network.await_index(START - 1)
        network.broker.stop()
        _feed(run, AWAY)
        run.await_log("records wait")
        network.broker.start()
        _feed(run, START)
        network.await_index(2 * START + AWAY - 1)
        code = run.end()
        _check_heard(network, [run])
    expect(code == 0, f"exit code {code}")
    return (
        f"{AWAY} records waited in the journal; the listener has all {len(run.records)}, in order"
    )


def _slow(lab: Lab) -> Happened:
    """A broker that reads nothing for a while: stopped, with open connections."""
    with _network(lab) as network, lab.run(*network.options) as run:
        _feed(run, START)
        network.await_index(START - 1)
        network.broker.signal(signal.SIGSTOP)
        _feed(run, AWAY)
        network.broker.signal(signal.SIGCONT)
        network.await_index(START + AWAY - 1)
        run.end()
        _check_heard(network, [run])
    late = sum("LATE" in record["flags"] for record in run.records)
    return f"no record waited for it ({late} LATE); the listener has all {len(run.records)}"


def _over_a_restart(lab: Lab) -> Happened:
    """The broker is down until after the end of the run; the next run sends the rest."""
    with _network(lab) as network:
        with lab.run(*network.options) as first:
            _feed(first, START)
            network.await_index(START - 1)
            network.broker.stop()
            _feed(first, AWAY)
            code = first.end()
        expect(code == 0, f"exit code {code}")
        network.broker.start()
        with lab.run(*network.options) as second:
            _feed(second, START)
            network.await_index(START - 1)
            second.end()
        _check_heard(network, [first, second])
    return "the next run sent them first; the listener has all of both runs, in order"


def _for_good(lab: Lab) -> Happened:
    with _network(lab, journal=False) as network, lab.run(*network.options) as run:
        _feed(run, START)
        network.await_index(START - 1)
        network.broker.kill()
        _feed(run, AWAY)
        code = run.end()
        heard = network.heard()
    lost = len(run.records) - len(heard)
    told = next(line for line in run.log if "not written" in line).split()[-1]
    expect(code == 1, f"exit code {code}")
    expect(told == str(lost), f"{lost} records were lost, the log says {told}")
    return f"the other sink has every record; {lost} lost ones are counted and logged, exit code 1"


FAULTS = (
    Fault("broker down", "stopped for 400 samples", "nothing is missing at the listener", _down),
    Fault("broker slow", "takes nothing for 400 samples",
          "no sample waits, nothing is missing at the listener", _slow),
    Fault("broker down to the end", "away until the run has ended",
          "the next run sends what is missing", _over_a_restart),
    Fault("broker gone for good", "killed, and no journal",
          "the other sink has all, the loss is counted, exit code 1", _for_good),
)  # fmt: skip
