"""An owner answers a run by MQTT; whatever else is sent there changes nothing and is answered."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gruard_command import PATIENCE, ask, gruard, plain_error, start
from hypothesis import given
from hypothesis import strategies as st
from made_journal import Log

from edge_runtime.alarm import Alarm, BlamedReading
from edge_runtime.alarms.log import ALARMS, PastAlarms
from edge_runtime.detector.lasting_change import KEPT as KEPT_CHANGE
from edge_runtime.detector.lasting_change import WORD as CHANGE_WORD
from edge_runtime.detector.lasting_change import Finding, KeptChange, LastingChange, Word
from edge_runtime.errors import GruardError
from edge_runtime.learning.answers import read_answers, write_found
from edge_runtime.marks import read_marks
from edge_runtime.mute import WORD as MUTE_WORD
from edge_runtime.mute import Mute
from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.sinks.control import LONGEST, MOST, WINDOW, OwnerRequests, obey
from edge_runtime.sinks.open_sink import open_sinks
from edge_runtime.sinks.sink import Existing
from edge_runtime.supervision.starts import MARKER
from tests.apparatus.mosquitto import Broker, Listener

TOPIC = "plant/pump"
SET, RESULT = f"{TOPIC}/set", f"{TOPIC}/set/result"
EPOCH = 1.7e9
ALARM = Alarm("pump", 464, 475, 9.28, 9.5, EPOCH, (BlamedReading("flow"),), "level")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of a run with one alarm and an open change."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / MARKER).write_text("{}")
    write_sealed(folder / ALARMS, PastAlarms((ALARM,)))
    finding = Finding(EPOCH, ("flow",), 1, None, "")
    write_sealed(folder / KEPT_CHANGE, KeptChange("d", LastingChange(1, 1, (2.5,), ()), finding))
    return folder


def test_each_message_does_what_its_command_does(state: Path) -> None:
    assert "muted until" in obey({"mute": "8h", "reason": "cleaning"}, state, EPOCH)
    assert read_sealed(state / MUTE_WORD, Mute) == Mute(EPOCH, EPOCH + 8 * 3600, "cleaning")
    assert obey({"unmute": True}, state, EPOCH) == "alarms are no longer muted"
    assert not (state / MUTE_WORD).exists()
    for which in ("last", 470, 9.3):
        done = obey({"mark": which, "as": "false", "note": "a"}, state, EPOCH)
        assert done == "the alarm of sample 464 is marked as false"
    (mark,) = read_marks(state)[0]
    assert (mark.alarm, mark.real, mark.note) == (ALARM, False, "a")
    assert "is accepted" in obey({"accept": True, "reason": "bearing"}, state, EPOCH)
    word = read_sealed(state / CHANGE_WORD, Word)
    assert word and word.accepted and word.reason == "bearing"
    assert "is open again" in obey({"accept": True, "undo": True}, state, EPOCH)


def test_what_creeps_is_accepted_where_no_change_is_reported(state: Path) -> None:
    (state / KEPT_CHANGE).unlink()
    with pytest.raises(GruardError, match="no change is reported"):
        obey({"accept": True}, state, EPOCH)
    write_found(state, ("flow",), EPOCH, ())
    with pytest.raises(GruardError, match="no change is reported"):
        obey({"accept": True, "undo": True}, state, EPOCH)
    assert obey({"accept": True}, state, EPOCH).startswith("what flow did is accepted")
    (creep,) = read_answers(state, 0.0).creeps
    assert creep.channel == "flow"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "one of mute, unmute, mark and accept"),
        ({"mute": "8h", "unmute": True}, "one of mute, unmute, mark and accept"),
        ({"mute": "8 hours"}, "write 30m, 8h or 2d"),
        ({"mute": "9999d"}, "at most 30d"),
        ({"mute": 8}, "mute: a text is expected"),
        ({"mute": "8h", "reason": None}, "reason: a text is expected"),
        ({"mute": "8h", "reason": "a\nb"}, "one line of at most 200 characters"),
        ({"mute": "8h", "reason": "\ud800"}, "one line of at most 200 characters"),
        ({"mute": "8h", "for": "ever"}, "mute has no field 'for'; it has reason"),
        ({"unmute": True}, "alarms are not muted"),
        ({"unmute": 1}, "unmute: true is expected"),
        ({"unmute": True, "reason": ""}, "it has none"),
        ({"mark": "last"}, '"false" or "real"'),
        ({"mark": "last", "as": False}, '"false" or "real"'),
        ({"mark": "last", "as": ["real"]}, '"false" or "real"'),
        ({"mark": True, "as": "real"}, "mark: last, the index"),
        ({"mark": "../../etc", "as": "real"}, "names no alarm"),
        ({"mark": 10**400, "as": "real"}, "is remembered"),
        ({"accept": False}, "accept: true is expected"),
        ({"accept": True, "undo": "yes"}, "undo: true or false"),
        ({"accept": True, "undo": True}, "is not accepted; there is nothing to undo"),
    ],
)
def test_any_other_message_changes_nothing_and_says_why(
    state: Path, fields: dict[str, Any], told: str
) -> None:
    before = {file: file.read_bytes() for file in state.iterdir()}
    with pytest.raises(GruardError) as caught:
        obey(fields, state, EPOCH)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in state.iterdir()} == before


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["mute", "unmute", "mark", "as", "accept", "undo", "note"]), inner,
        max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip


@given(message=st.binary(max_size=60) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_have_one_answer_in_strict_json(
    tmp_path_factory: pytest.TempPathFactory, message: bytes
) -> None:
    requests = served(tmp_path_factory.mktemp("state"), Log())
    answer = requests._obeyed_or_refused(message)
    assert answer["ok"] is False and isinstance(answer["error"], str)
    json.loads(json.dumps(answer, allow_nan=False))


def served(folder: Path, log: Log, now: float = 0.0) -> OwnerRequests:
    return OwnerRequests(folder, SET, lambda: now, lambda: EPOCH, log)


@pytest.mark.parametrize("message", [
    None, b"", b"mute", b"\xff\xfe", b"null", b"[]", b'"mute"', b"{", b"[" * LONGEST,
    b'{"mute":"8h"}' + b" " * LONGEST, b'{"mute":"8h","mute":"9h"}', b'{"mute":NaN}',
    b'{"mute":"8h"}\0', b"9" * 4000,
])  # fmt: skip
def test_hostile_messages_are_counted_and_answered(state: Path, message: bytes | None) -> None:
    log = Log()
    answer = served(state, log)._obeyed_or_refused(message)
    assert answer["ok"] is False and answer["refused"] == 1 and "\n" not in answer["error"]
    assert len(log.lines) == 1 and not (state / MUTE_WORD).exists()


def test_too_many_messages_wear_no_card_and_fill_no_log(state: Path) -> None:
    log, now = Log(), 0.0
    requests = OwnerRequests(state, SET, lambda: now, lambda: EPOCH, log)
    answers = [requests._obeyed_or_refused(b'{"mute":"8h"}') for _ in range(10 * MOST)]
    assert [answer["ok"] for answer in answers] == [True] * MOST + [False] * 9 * MOST
    assert "more than 20 messages within a minute" in answers[-1]["error"]
    assert answers[-1]["refused"] == 9 * MOST and len(log.lines) == 2
    now = WINDOW
    assert requests._obeyed_or_refused(b'{"mute":"8h"}')["ok"]


def test_messages_never_wait_for_the_thread_that_obeys_them(state: Path) -> None:
    requests, woken = served(state, Log()), threading.Event()
    for _ in range(1000):
        requests.put(b"{}")  # before there is a thread, as if it hung
    assert requests.refused > 900 and requests.answer() is None
    requests.start(woken.set)
    assert woken.wait(PATIENCE)
    requests.close()
    assert requests.thread.ended


# Whole runs, at a real broker.


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listener = Listener(broker.port)
    yield listener
    listener.stop()


class Answering:
    """`gruard run` on stdin, which its owner answers by MQTT."""

    def __init__(
        self,
        broker: Broker,
        listener: Listener,
        state: Path,
        options: str,
        plan: str = "none@0",
    ) -> None:
        self.broker, self.listener = broker, listener
        self.process = start(
            "run", "x.gruard", "--source", "-", "--sink", "-", "--state", str(state),
            "--sink", broker.address(f"{TOPIC}{options}"), plan=plan,
        )  # fmt: skip
        assert self.process.stderr
        self.log: list[str] = []
        self.reader = threading.Thread(target=self._listen, daemon=True)
        self.reader.start()
        ask(self.process, b"a,b\n")

    def _listen(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line.decode())

    def row(self, a: int = 500) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask(self.process, b"%d,2\n" % a))
        return found

    def until_flagged(self, on: bool, flag: str = "MUTED") -> None:
        limit = time.monotonic() + PATIENCE
        while (flag in self.row()["flags"]) is not on:
            assert time.monotonic() < limit, self.log

    def told(self, message: str | bytes) -> dict[str, Any]:
        """Send one message, and return its answer."""
        before = len(self.listener.on(RESULT))
        self.broker.publish(SET, message)
        self.listener.wait_for(lambda: len(self.listener.on(RESULT)) > before)
        found: dict[str, Any] = json.loads(self.listener.on(RESULT)[before])
        return found

    def ready(self, times: int = 1) -> None:
        """Wait until it is online, for the n-th time; then the broker has its subscription, too."""
        self.row(1)
        status = f"{TOPIC}/status"
        self.listener.wait_for(lambda: self.listener.on(status).count(b"online") == times)

    def stop(self) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.read()
        assert self.process.wait(PATIENCE) == 0
        self.reader.join(PATIENCE)
        assert "Traceback" not in "".join(self.log)
        return "".join(self.log)


def test_an_owner_mutes_marks_and_unmutes_a_run(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    run = Answering(broker, listener, state, "?control=1")
    run.ready()
    found = run.row()
    run.row()  # the one before is all done
    assert run.told('{"mark": "last", "as": "false", "note": "cleaning"}')["ok"]
    (mark,) = read_marks(state)[0]
    assert mark.alarm.index == found["index"] and not mark.real
    done = run.told('{"mute": "8h", "reason": "cleaning"}')
    assert done["ok"] and done["done"].startswith("alarms are muted until ")
    run.until_flagged(True)
    for hostile in (b"{", b"[" * 5000, bytes(200_000), b'{"mute": "1s"}', b"\xff"):
        refused = run.told(hostile)
        assert refused["ok"] is False and refused["refused"] >= 1
    assert run.told('{"accept": true}')["error"].endswith("the machine runs as recorded")
    assert run.told('{"unmute": true}')["ok"]
    run.until_flagged(False)
    log = run.stop()
    assert "alarms are muted for 8 h (cleaning)" in log and "alarms are no longer muted" in log
    assert listener.on(f"{TOPIC}/status")[-1] == b"offline"
    # The alarm that went on was announced where it was muted and where it no longer was.
    sent = [json.loads(message) for message in listener.on(TOPIC)]
    assert [("MUTED" in each["flags"]) for each in sent if each["alarm"]] == [False, True, False]


def test_an_owner_accepts_a_change(broker: Broker, listener: Listener, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    run = Answering(broker, listener, state, "?control=1", plan="change@3")
    run.ready()
    run.until_flagged(True, "CHANGED")
    run.row()  # the one before is all done, and its change is kept
    done = run.told('{"accept": true, "reason": "new bearing"}')
    assert done["ok"] and done["done"].endswith(" is accepted"), done
    run.until_flagged(False, "CHANGED")
    assert "the reported change is accepted (new bearing)" in run.stop()


def test_a_retained_message_is_not_obeyed(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    broker.publish(SET, '{"mute": "8h"}', retain=True)
    state = tmp_path / "state"
    state.mkdir()
    (state / MARKER).write_text("{}")
    run = Answering(broker, listener, state, "?control=1")
    run.ready()
    run.told("{}")  # after the retained one, which the broker sends first
    run.stop()
    assert [json.loads(answer)["ok"] for answer in listener.on(RESULT)] == [False]
    assert not (state / MUTE_WORD).exists()


def test_a_broker_that_was_away_hears_again(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    run = Answering(broker, listener, state, "?control=1")
    run.ready()
    broker.kill()
    broker.start()
    listener.wait_for_subscription(2)
    run.ready(times=2)
    assert run.told('{"mute": "8h"}')["ok"]
    run.stop()


def test_without_control_nobody_is_heard(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    run = Answering(broker, listener, state, "")
    run.row()
    listener.wait_for(lambda: bool(listener.on(TOPIC)))
    broker.publish(SET, '{"mute": "8h"}')
    listener.wait_for(lambda: bool(listener.on(SET)))
    run.stop()
    assert listener.on(RESULT) == [] and not (state / MUTE_WORD).exists()


def test_a_broker_that_refuses_the_topic_is_one_line(tmp_path: Path) -> None:
    log = Log()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = f"mqtt://127.0.0.1:{listening.getsockname()[1]}/{TOPIC}?control=1"
        sink = open_sinks([target], Existing.REFUSED, log, True, state=tmp_path)
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"\x20\x02\x00\x00")
            heard = b""
            while SET.encode() not in heard:
                heard += connection.recv(4096)
            number = heard[(begin := heard.index(b"\x82")) + 2 : begin + 4]
            connection.sendall(b"\x90\x03" + number + b"\x80")
            log.wait_for(f"the broker refuses {SET} (")
    sink.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("?control=yes", "control=yes is neither 0 nor 1"),
        ("?control=1", "control=1 needs a live source and a state folder; add --state FOLDER"),
    ],
)
def test_control_is_refused_where_it_could_do_nothing(
    tmp_path: Path, options: str, told: str
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n1,2\n")
    target = f"mqtt://localhost:1/{TOPIC}{options}"
    done = gruard("run", "x.gruard", "--source", str(rows), "--sink", target)
    assert told in plain_error(done)
