"""What an owner tells a run: accept a change, mute alarms, unmute them.

Each function writes a small file in the state folder; the run reads it within a second, or when it
starts. Commands and MQTT call the same functions. They raise GruardError, and NothingError when
there is nothing to do. `now` is epoch seconds.
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.detector.lasting_change import KEPT as KEPT_CHANGE
from edge_runtime.detector.lasting_change import WORD as CHANGE_WORD
from edge_runtime.detector.lasting_change import KeptChange, Word
from edge_runtime.errors import GruardError, reason
from edge_runtime.files import sync
from edge_runtime.mute import WORD as MUTE_WORD
from edge_runtime.mute import Mute
from edge_runtime.plain import UNPRINTABLE, read_sealed, write_sealed
from edge_runtime.status.health import finding_words
from edge_runtime.supervision.starts import MARKER

LONGEST_TEXT = 200  # characters of a reason or a note


class NothingError(GruardError):
    """There is nothing to accept, undo, unmute or mark."""

    exit_code = 1


def checked_text(text: str) -> str:
    """Return a reason or a note, which must be one short printable line."""
    if UNPRINTABLE.search(text) or len(text) > LONGEST_TEXT:
        raise GruardError(f"one line of at most {LONGEST_TEXT} characters is expected")
    return text


def mute(folder: Path, seconds: float, why: str, now: float) -> Mute:
    """Mute the alarms of the run for so many seconds from now; replaces an earlier mute."""
    _require_run(folder)
    word = Mute(now, now + seconds, checked_text(why))
    _write(folder / MUTE_WORD, word)
    return word


def unmute(folder: Path, now: float) -> None:
    """End the mute."""
    _require_run(folder)
    file = folder / MUTE_WORD
    try:
        word = read_sealed(file, Mute)
        if word is None or word.ends <= now:
            raise NothingError(f"{folder}: alarms are not muted")
    except NothingError:
        raise
    except GruardError:
        pass  # the run ignores a damaged one; this removes it
    try:
        file.unlink(missing_ok=True)
        sync(folder)
    except OSError as error:
        raise GruardError(f"{file}: cannot be removed ({reason(error)})") from None


def accept(folder: Path, undo: bool, why: str, now: float) -> KeptChange:
    """Accept the reported change of the machine, or open it again; return it."""
    kept = _open_change(folder, undo, now)
    assert kept.finding is not None
    word = Word(kept.bundle, kept.finding.since, not undo, checked_text(why), now)
    _write(folder / CHANGE_WORD, word)
    return kept


def change_words(kept: KeptChange, now: float) -> str:
    """Return `the change since 07:32 on flow`."""
    assert kept.finding is not None
    return f"the change{finding_words(kept.finding, now)}"


def _open_change(folder: Path, undo: bool, now: float) -> KeptChange:
    """Read what the run keeps; its change must be open or, with `undo`, accepted."""
    kept = read_sealed(folder / KEPT_CHANGE, KeptChange)
    if kept is None or kept.finding is None:
        raise NothingError(f"{folder}: no change is reported; the machine runs as recorded")
    accepted = kept.finding.accepted is not None
    try:
        word = read_sealed(folder / CHANGE_WORD, Word)
    except GruardError:  # the run ignores a damaged one, too; this replaces it
        word = None
    if word is not None and word.names(kept):
        accepted = word.accepted
    if accepted and not undo:
        raise NothingError(f"{change_words(kept, now)} is accepted already; --undo reverts that")
    if undo and not accepted:
        raise NothingError(f"{change_words(kept, now)} is not accepted; there is nothing to undo")
    return kept


def _require_run(folder: Path) -> None:
    """Raise GruardError unless a run keeps its state in `folder`: a typing mistake is silent."""
    try:
        found = (folder / MARKER).is_file()
    except OSError as error:
        raise GruardError(f"{folder}: cannot be read ({reason(error)}); try sudo") from None
    if not found:
        raise GruardError(
            f"{folder}: no run keeps its state here; name the folder of gruard run --state"
        )


def _write(file: Path, word: Mute | Word) -> None:
    try:
        write_sealed(file, word)
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({reason(error)})") from None
