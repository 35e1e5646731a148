"""The scripts of examples/on-alarm, with a real server and a mailer that keeps its mail."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

import pytest

from edge_runtime.alarm import Alarm, AlarmEvent, BlamedReading

SCRIPTS = Path(__file__).parents[3] / "examples/on-alarm"
ALARM = Alarm(
    "Pump 3", 7, 9, 7.0, 9.0, 1.7e9, (BlamedReading("flow", 7.5, 1.0, 3.0),), "level", 0.9
)
TEXT = "Pump 3：flow & heat 自 14:02:10 起偏离健康状态"
MESSAGE = AlarmEvent("began", ALARM, TEXT).fields()
pytestmark = pytest.mark.skipif(
    not (shutil.which("jq") and shutil.which("curl")), reason="jq or curl is missing here"
)


class Server(ThreadingHTTPServer):
    """Keeps the requests, and answers each with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.requests = 200, list[tuple[str, str, str]]()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.requests.append((self.path, self.headers.get("Priority", ""), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def send(script: str, word: str, message: object = MESSAGE, **environment: str) -> int:
    done = subprocess.run(
        [str(SCRIPTS / script), word],
        input=json.dumps(message),
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert bool(done.returncode) is bool(done.stderr), done.stderr
    return done.returncode


def test_ntfy_gets_the_sentence_and_how_much_it_matters(server: Server) -> None:
    place = f"http://127.0.0.1:{server.server_port}"
    assert send("ntfy.sh", "pump", NTFY_SERVER=place) == 0
    assert send("ntfy.sh", "pump", MESSAGE | {"over": True}, NTFY_SERVER=place) == 0
    assert send("ntfy.sh", "pump", MESSAGE | {"muted": True}, NTFY_SERVER=place) == 0
    assert [priority for _, priority, _ in server.requests] == ["high", "default"]
    assert {(path, body.strip()) for path, _, body in server.requests} == {("/pump", TEXT)}
    server.status = 500
    assert send("ntfy.sh", "pump", NTFY_SERVER=place)


def test_telegram_gets_the_sentence(server: Server) -> None:
    place = {"TELEGRAM_SERVER": f"http://127.0.0.1:{server.server_port}", "TELEGRAM_TOKEN": "1:aB"}
    assert send("telegram.sh", "-42", **place) == 0
    ((path, _, body),) = server.requests
    assert path == "/bot1:aB/sendMessage"
    assert parse_qs(body) == {"chat_id": ["-42"], "text": [TEXT]}
    server.status = 401
    assert send("telegram.sh", "-42", **place)


def test_a_mail_has_the_sentence_and_the_readings(tmp_path: Path) -> None:
    mail, sendmail = tmp_path / "mail", tmp_path / "sendmail"
    sendmail.write_text(f"#!/bin/sh\ncat > {mail}\n")
    sendmail.chmod(0o755)
    assert send("mail.sh", "owner@localhost", PATH=f"{tmp_path}:{os.environ['PATH']}") == 0
    head, _, body = mail.read_text().partition("\n\n")
    assert f"Subject: gruard alarm {ALARM.id} began" in head and "To: owner@localhost" in head
    assert TEXT in body and "flow: 7.5, expected 1 to 3" in body
