"""`gruard run --journal` and `gruard journal` as a user meets them: processes, signals, brokers."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gruard_command import PATIENCE, ROOT, ask, gruard, indices, plain_error, start
from test_cli_run import rows

from edge_runtime.journal.frames import Entry
from edge_runtime.journal.segments import JournalDisk, Segments
from tests.apparatus.file_limit import files_below
from tests.apparatus.mosquitto import Broker, Listener

__all__ = ["rows"]  # a fixture


def kept(journal: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edge_runtime", "journal", str(journal)],
        capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_a_journal_is_read_back_as_json_lines(rows: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for _ in range(2):
        done = gruard("run", "x.gruard", "--source", rows, "--journal", str(journal))
        assert done.returncode == 0
    printed = kept(journal)
    assert printed.returncode == 0 and "40 records, 0 missing between them" in printed.stderr
    lines = printed.stdout.splitlines()
    assert indices(printed.stdout) == [*range(20), *range(20)]
    assert len({json.loads(line)["run"] for line in lines}) == 2
    sent = [json.loads(line) for line in done.stdout.splitlines()]
    for line, expected in zip(lines[20:], sent, strict=True):
        fields = json.loads(line)
        del fields["run"]
        assert fields == expected


def test_damage_is_told_and_skipped(rows: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert gruard("run", "x", "--source", rows, "--journal", str(journal)).returncode == 0
    (segment,) = journal.glob("*.journal")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(bytes(data))
    printed = kept(journal)
    assert len(indices(printed.stdout)) == 19 and "19 records, 1 missing" in printed.stderr


def test_entries_of_others_are_counted_and_not_printed(rows: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    gruard("run", "x.gruard", "--source", rows, "--journal", str(journal))
    foreign = Segments(JournalDisk(journal), 1_000_000)
    foreign.append(Entry(foreign.newest + 1, b"\x1b[2J not a record"))
    foreign.close()
    printed = kept(journal)
    assert printed.returncode == 0 and indices(printed.stdout) == list(range(20))
    assert "20 records, 0 missing between them, 1 skipped as no records" in printed.stderr


def test_no_journal_is_a_plain_error(tmp_path: Path) -> None:
    assert "cannot be read as a journal" in plain_error(kept(tmp_path / "nothing"))


def test_a_busy_journal_is_refused_before_anything_is_written(rows: str, tmp_path: Path) -> None:
    journal, sink = tmp_path / "journal", tmp_path / "out.jsonl"
    with start("run", "x.gruard", "--source", "-", "--journal", str(journal)) as process:
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        arguments = ("--source", rows, "--journal", str(journal), "--sink", str(sink))
        assert "another run writes this journal" in plain_error(gruard("run", "x", *arguments))
        process.communicate(timeout=PATIENCE)
    assert not sink.exists()


def wait_for_records(journal: Path, count: int) -> None:
    """The journal is written by a thread of its own, at once but not before the answer."""
    deadline = time.monotonic() + PATIENCE
    while len(kept(journal).stdout.splitlines()) < count:
        assert time.monotonic() < deadline


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_run_could_not_send_before_it_ended_is_sent_by_the_next(
    number: signal.Signals, tmp_path: Path
) -> None:
    broker, journal = Broker(tmp_path), tmp_path / "journal"
    broker.kill()
    target = broker.address("plant/pump?what=all")
    arguments = ("run", "x", "--source", "-", "--sink", "-", "--sink", target)
    arguments += ("--journal", str(journal))
    with start(*arguments) as process:
        ask(process, b"a,b\n")
        for _ in range(5):
            ask(process, b"1,2\n")
        wait_for_records(journal, 5)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert b"no connection (Connection refused); records wait" in stderr
    if number == signal.SIGTERM:
        assert b"the last 5 records wait in the journal" in stderr
        assert b"not written  0" in stderr
    broker.start()
    listener = Listener(broker.port)
    with start(*arguments) as process:
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    listener.wait_for(lambda: len(listener.on("plant/pump")) >= 6)
    received = [json.loads(payload) for payload in listener.on("plant/pump")]
    assert [item["index"] for item in received] == [0, 1, 2, 3, 4, 0]
    assert [len({item["run"] for item in part}) for part in (received[:5], received)] == [1, 2]
    listener.stop()
    broker.kill()


def test_a_killed_run_is_told_of_by_the_broker(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    listener = Listener(broker.port)
    with start("run", "x", "--source", "-", "--sink", "-", "--sink", broker.address()) as process:
        ask(process, b"a,b\n")
        ask(process, b"1,2\n")
        listener.wait_for(lambda: len(listener.messages) >= 2)
        process.kill()
        process.communicate(timeout=PATIENCE)
    listener.wait_for(lambda: len(listener.messages) >= 3)
    assert listener.on("plant/pump/status") == [b"online", b"offline"]
    listener.stop()
    broker.kill()


def test_a_full_disk_under_the_journal_does_not_stop_the_run_but_is_told(
    rows: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    with files_below(2000):
        done = gruard("run", "x", "--source", rows, "--journal", str(journal), "--json")
    assert indices(done.stdout) == list(range(20)) and done.returncode == 1
    assert "journal: cannot write to" in done.stderr and "File too large" in done.stderr
    lost = json.loads(done.stderr.splitlines()[-1])["dropped"]
    assert lost == 20 - len(indices(kept(journal).stdout)) > 0


def test_a_recording_waits_for_a_broker_and_all_of_it_arrives(rows: str, tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    listener = Listener(broker.port)
    done = gruard("run", "x", "--source", rows, "--sink", broker.address("plant/pump?what=all"))
    assert done.returncode == 0, done.stderr
    listener.wait_for(lambda: len(listener.messages) >= 22)
    assert [json.loads(m)["index"] for m in listener.on("plant/pump")] == list(range(20))
    assert listener.on("plant/pump/status") == [b"online", b"offline"]
    listener.stop()
    broker.kill()
