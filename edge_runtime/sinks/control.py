"""What an owner tells a run by MQTT: one JSON object per message, one answer per message.

`{"mute": "8h", "reason": "…"}`, `{"unmute": true}`, `{"mark": "last", "as": "false", "note": "…"}`
and `{"accept": true, "undo": true, "reason": "…"}` do what the commands of these names do
(`edge_runtime.owner`). Any other message changes nothing; it is counted, and the answer says why.
"""

from __future__ import annotations

import json
import queue
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_runtime import owner
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.learning.answers import accept_creeps
from edge_runtime.mute import parse_duration
from edge_runtime.plain import parse_json, shown
from edge_runtime.status.health import mute_words
from edge_runtime.threads import BEAT, MonitoredThread

LONGEST = 4096
"""Bytes of a message."""
MOST, WINDOW = 20, 60.0
"""Messages that are obeyed within so many seconds: each may write to an SD card."""
_WAITING = 16  # messages, and answers
_FAREWELL = 1.0  # seconds
_FIELDS = {
    "mute": ("reason",),
    "unmute": (),
    "mark": ("as", "note"),
    "accept": ("undo", "reason"),
}


class OwnerRequests:
    """Obeys messages in a thread of its own, because a disk may hang.

    folder: the state folder of the run. name: of the topic, for the log. clock: monotonic seconds;
    wall: epoch seconds. log takes one line per event. refused: messages that changed nothing.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self.refused = 0
        self._folder, self._name = folder, name
        self._clock, self._wall, self._log = clock, wall, LimitedLog(log, clock)
        self._obeyed = deque([-WINDOW + clock()] * MOST, maxlen=MOST)  # when
        self._requests: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._answers: deque[bytes] = deque(maxlen=_WAITING)
        self._wake: Callable[[], None] = lambda: None
        self._closing = False
        self.thread = MonitoredThread(f"{name}, requests", self._serve)

    def start(self, wake: Callable[[], None]) -> None:
        """Start the thread. Call `wake` when there is an answer."""
        self._wake = wake
        self.thread.start()

    def put(self, message: bytes | None) -> None:
        """Take one message, None for one that was too long. Never waits; drops what is too much."""
        try:
            self._requests.put_nowait(message)
        except queue.Full:
            self.refused += 1

    def answer(self) -> bytes | None:
        """Return the next answer, None when there is none."""
        try:
            return self._answers.popleft()
        except IndexError:
            return None

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self.put(b"")  # to wake it
        self.thread.join(_FAREWELL)

    def _serve(self) -> None:
        while not self._closing:
            self.thread.beat()
            try:
                message = self._requests.get(timeout=BEAT)
            except queue.Empty:
                continue
            if not self._closing:
                self._answers.append(json.dumps(self._obeyed_or_refused(message)).encode())
                self._wake()

    def _obeyed_or_refused(self, message: bytes | None) -> dict[str, Any]:
        now = self._clock()
        try:
            if now - self._obeyed[0] < WINDOW:
                raise GruardError(f"more than {MOST} messages within a minute; send it later")
            done = obey(_parsed(message), self._folder, self._wall())
            self._obeyed.append(now)
        except GruardError as error:
            self.refused += 1
            self._log.trouble("refused", f"{self._name}: a message is refused: {error}")
            return {"ok": False, "error": str(error), "refused": self.refused}
        self._log.trouble("obeyed", f"{self._name}: {done}")
        return {"ok": True, "done": done}


def _parsed(message: bytes | None) -> dict[str, Any]:
    if message is None or len(message) > LONGEST:
        raise GruardError(f"a message has at most {LONGEST} bytes")
    try:
        fields = parse_json(message)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise GruardError('a JSON object such as {"mute": "8h"} is expected')
    return fields


def obey(fields: Mapping[str, Any], folder: Path, now: float) -> str:
    """Do what one message asks; return what was done. Raises GruardError."""
    asked = [name for name in _FIELDS if name in fields]
    if len(asked) != 1:
        raise GruardError("one of mute, unmute, mark and accept is expected")
    name = asked[0]
    if unknown := sorted(fields.keys() - {name, *_FIELDS[name]}):
        known = ", ".join(_FIELDS[name]) or "none"
        raise GruardError(f"{name} has no field {shown(unknown[0])}; it has {known}")
    if name == "mute":
        seconds, why = parse_duration(_text(fields, "mute")), _text(fields, "reason", "")
        word = owner.mute(folder, seconds, why, now)
        return f"alarms are muted{mute_words(word, now)}"
    if name == "mark":
        return _mark(fields, folder, now)
    if fields[name] is not True:
        raise GruardError(f"{name}: true is expected")
    if name == "unmute":
        owner.unmute(folder, now)
        return "alarms are no longer muted"
    undo = fields.get("undo", False)
    if not isinstance(undo, bool):
        raise GruardError("undo: true or false is expected")
    try:
        change = owner.accept(folder, undo, _text(fields, "reason", ""), now)
    except owner.NothingError:
        if undo or not (channels := accept_creeps(folder)):
            raise
        return f"what {', '.join(channels)} did is accepted; gruard relearn takes it as normal"
    return f"{owner.change_words(change, now)} {'is open again' if undo else 'is accepted'}"


def _mark(fields: Mapping[str, Any], folder: Path, now: float) -> str:
    which, verdict = fields["mark"], fields.get("as")
    if type(which) in (int, float):
        which = repr(which)
    if not isinstance(which, str):
        raise GruardError("mark: last, the index of a record, or a time is expected")
    if verdict not in ("false", "real"):
        raise GruardError('as: "false" or "real" is expected')
    word = owner.mark(folder, which, verdict == "real", _text(fields, "note", ""), now)
    return f"the alarm of sample {word.alarm.index} is marked as {verdict}"


def _text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    text = fields.get(name, default)
    if not isinstance(text, str):
        raise GruardError(f"{name}: a text is expected")
    return text
