"""What may be written after --sink: everything else is refused, and the text says what there is."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_sinks import record

from edge_runtime.address import parse_mqtt_address
from edge_runtime.errors import GruardError
from edge_runtime.sinks.open_sink import open_sinks
from edge_runtime.sinks.sink import Existing, open_json_lines


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("http://host/x", "no sink is called http://; there are FILE, - .stdout., mqtt://HOST/TOP"),
        ("mqtt:///topic", "is written mqtt://HOST:PORT/TOPIC"),
        ("mqtt://host:port/topic", "is written mqtt://HOST:PORT/TOPIC"),
        ("mqtt://host:0/topic", "is written mqtt://HOST:PORT/TOPIC"),
        ("mqtt://host:99999/topic", "is written mqtt://HOST:PORT/TOPIC"),
        ("mqtt://host", "no topic is named"),
        ("mqtt://host/", "no topic is named"),
        ("mqtt://host/a/+/b", "no wildcards"),
        ("mqtt://host/a/#", "no wildcards"),
        ("mqtt://host/a%23", "no wildcards"),
        ("mqtt://host/a?qos=2", "mqtt: has no such option; it has password-file, what"),
        ("mqtt://host/a?ca=x", "mqtt: has no such option"),
        ("mqtts://host/a?qos=2", "mqtts: has no such option; it has ca, password-file, what"),
        ("mqtt://host/a?what=", "option what needs one value"),
        ("mqtt://host/a?what=all&what=all", "option what needs one value"),
        ("mqtt://host/a?what=some", "neither alarms nor all"),
        ("mqtts://host/a?ca=/no/ca.pem", "/no/ca.pem: no such file"),
        ("mqtts://host/a?ca=/dev/null", "/dev/null: is a device, not a file; ca= names the PEM"),
        ("mqtts://host/a?ca=/etc/passwd", "/etc/passwd: not a certificate"),
        ("mqtt://host/a?password-file=/no/file", "/no/file: cannot be read"),
        ("mqtt://host/a?password-file=/dev/zero", "is a device, not a file; it must hold one"),
        ("mqtt://host/a?password-file=/etc/passwd", "must hold one line USER:PASSWORD"),
    ],
)
def test_a_wrong_address_is_explained(target: str, text: str) -> None:
    with pytest.raises(GruardError, match=text):
        open_sinks([target], Existing.REFUSED, print, True)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(GruardError, match="must not hold a user name") as refusal:
        open_sinks(["mqtt://pump:secret@host/a"], Existing.REFUSED, print, True)
    assert "secret" not in str(refusal.value)


def test_a_password_needs_a_user() -> None:
    with pytest.raises(GruardError, match="GRUARD_MQTT_USER is not"):
        parse_mqtt_address("mqtt://host/a", {"GRUARD_MQTT_PASSWORD": "secret"})


def test_an_address_is_taken_apart() -> None:
    plain = parse_mqtt_address("mqtt://host/plant/pump%20one", {})
    assert (plain.host, plain.port, plain.topic) == ("host", 1883, "plant/pump one")
    assert plain.tls is None and plain.login is None
    full = parse_mqtt_address("mqtts://[::1]:99/a?what=all", {"GRUARD_MQTT_USER": "pump"}, ["what"])
    assert (full.host, full.port, full.login) == ("::1", 99, ("pump", None))
    assert full.tls is not None and full.tls.check_hostname
    assert full.options == {"what": "all"} and full.name == "mqtts://[::1]:99/a"


def test_one_address_twice_is_refused() -> None:
    with pytest.raises(GruardError, match="twice"):
        open_sinks(
            ["mqtt://localhost/a", "mqtt://localhost/a?what=all"], Existing.REFUSED, print, True
        )


@pytest.mark.parametrize(
    "targets",
    [
        ("a.jsonl", "./a.jsonl"),
        ("-", "-"),
        ("there.jsonl", "hard.jsonl"),
        ("there.jsonl", "soft.jsonl"),
        ("pipe", "sub/../pipe"),
    ],
)
def test_one_file_twice_is_refused(
    targets: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("there.jsonl").write_text("kept\n")
    Path("hard.jsonl").hardlink_to("there.jsonl")
    Path("soft.jsonl").symlink_to("there.jsonl")
    os.mkfifo("pipe")
    with pytest.raises(GruardError, match="are one file; name another --sink"):
        open_sinks(targets, Existing.OVERWRITTEN, print, True)
    assert Path("there.jsonl").read_text() == "kept\n"


def test_a_device_may_be_named_twice() -> None:
    open_sinks(["/dev/null", "/dev/null"], Existing.CONTINUED, print, False).close()


def test_a_pipe_without_a_reader_is_refused_at_once_and_with_one_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for existing in Existing:
        with pytest.raises(GruardError, match="is a named pipe without a reader; start the reader"):
            open_json_lines(str(path), existing)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_json_lines(str(path))
    sink.write(record(0))
    assert os.read(reader, 4096).decode() == record(0).to_json() + "\n"
    assert os.get_blocking(sink._fd)  # a slow reader is waited for, it costs no record
    os.close(reader)
    sink.write(record(1))
    assert sink.dropped == 1
    sink.close()


@pytest.mark.parametrize("existing", Existing)
def test_what_is_no_file_is_refused(tmp_path: Path, existing: Existing) -> None:
    with pytest.raises(GruardError, match="is a directory, not a file; name another --sink"):
        open_json_lines(str(tmp_path), existing)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        with pytest.raises(GruardError, match="is a socket, not a file; name another --sink"):
            open_json_lines(str(tmp_path / "socket"), existing)


def test_nothing_is_left_behind_when_a_later_sink_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(GruardError):
        open_sinks([str(tmp_path / "out.jsonl"), "mqtt://host"], Existing.REFUSED, print, True)
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['paho'] = None\n"
        "from edge_runtime.sinks.sink import Existing\n"
        "from edge_runtime.sinks.open_sink import open_sinks\n"
        "open_sinks(['mqtt://localhost/a'], Existing.REFUSED, print, True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "pip install 'gruard[mqtt]'" in done.stderr.splitlines()[-1]


def test_a_file_that_was_cut_short_by_logrotate_goes_on_without_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = open_json_lines(str(path))
    sink.write(record(0))
    os.truncate(path, 0)
    sink.write(record(1))
    sink.close()
    assert path.read_text() == record(1).to_json() + "\n"
