"""`gruard accept`: what was reported as CHANGED is how the machine runs now."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.errors import GruardError

if TYPE_CHECKING:
    from edge_runtime.supervision.change_file import KeptChange

LONGEST_REASON = 200  # characters
SERVICES = Path("/var/lib/gruard")


class NothingError(GruardError):
    """There is no such change."""

    exit_code = 1


def _printable(context: click.Context, parameter: click.Parameter, reason: str) -> str:
    from edge_runtime.plain import UNPRINTABLE

    if UNPRINTABLE.search(reason) or len(reason) > LONGEST_REASON:
        raise click.BadParameter(f"one line of at most {LONGEST_REASON} characters is expected")
    return reason


@click.command()
@click.option("--reason", default="", callback=_printable, help="Why; kept, logged and shown.")
@click.option("--undo", is_flag=True, help="Take it back: the change is open again.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="The state folder of the run.  [default: STATE_DIRECTORY, else that of the service]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the change as one JSON object.")
def accept(reason: str, undo: bool, state: Path | None, as_json: bool) -> None:
    """Say that the machine runs like this now.

    A change that lasts is reported once, and every record is flagged CHANGED from then on
    (docs/changes.md). This ends the flag: the score, too, is judged from where the machine stands.
    A run takes it up within seconds, also one that starts later; the next change is reported
    again. A machine that is to stay so is best recorded and converted again.

    \b
    Exit code 0: accepted, or taken back; 1: there is nothing to accept, or to take back; 2: a
    problem you can mend.
    Example: gruard accept --reason "new bearing"
    """
    from edge_runtime.supervision.change_file import WORD, Word
    from edge_runtime.supervision.sealed_file import write_sealed

    folder = state or _folder()
    kept = _kept(folder, undo)
    assert kept.finding is not None
    word = Word(kept.bundle, kept.finding.since, not undo, reason, time.time())
    try:
        write_sealed(folder / WORD, word)
    except OSError as error:
        raise GruardError(f"{folder / WORD}: cannot be written ({error.strerror})") from None
    if as_json:
        known = {"since": kept.finding.since, "channels": kept.finding.channels}
        told = {"accepted": not undo, **known, "reason": reason, "file": str(folder / WORD)}
        click.echo(json.dumps(told))
        return
    done = "is open again" if undo else "is accepted"
    click.echo(f"{_named(kept)} {done}; a run takes it up within seconds, or when it starts")


def _kept(folder: Path, undo: bool) -> KeptChange:
    """What the run keeps, with a change that is open or, with `undo`, accepted."""
    from edge_runtime.supervision.change_file import KEPT, WORD, KeptChange, Word
    from edge_runtime.supervision.sealed_file import read_sealed

    kept = read_sealed(folder / KEPT, KeptChange)
    if kept is None or kept.finding is None:
        raise NothingError(f"{folder}: no change is reported; the machine is as it was recorded")
    accepted = kept.finding.accepted is not None
    try:
        word = read_sealed(folder / WORD, Word)
    except GruardError:  # the run ignores it, too, and it is replaced now
        word = None
    if word is not None and word.names(kept):
        accepted = word.accepted
    if accepted and not undo:
        raise NothingError(f"{_named(kept)} is accepted already; --undo takes that back")
    if undo and not accepted:
        raise NothingError(f"{_named(kept)} is not accepted; there is nothing to take back")
    return kept


def _named(kept: KeptChange) -> str:
    from edge_runtime.status.verdict import finding_words

    assert kept.finding is not None
    return f"the change{finding_words(kept.finding, time.time())}"


def _folder() -> Path:
    """The state folder of the service that this is called from, or of the only one here."""
    from edge_runtime.supervision.change_file import KEPT
    from edge_runtime.supervision.keeping import default_state

    if given := default_state(os.environ):
        return given
    found = sorted(file.parent for file in SERVICES.glob(f"*/{KEPT}"))
    if len(found) > 1:
        raise GruardError(f"several services run here, name one: {', '.join(map(str, found))}")
    if not found:
        raise GruardError(
            f"no service below {SERVICES} keeps a change, or it takes sudo to see; --state names "
            "the folder of a run"
        )
    return found[0]
