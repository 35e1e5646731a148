"""`gruard relearn`: learn again from what was healthy since, and promote what is better."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from edge_runtime.commands.options import (
    TRUSTED_KEYS,
    false_alarms_option,
    store_option,
    warn,
)
from edge_runtime.commands.owner import json_option
from edge_runtime.errors import GruardError

if TYPE_CHECKING:
    from edge_runtime.bundle.reader import Bundle
    from edge_runtime.learning.relearn import Decision
    from edge_runtime.updates.store import Store

_KEPT_OUT, _FAILED = 3, 1


@click.command()
@store_option
@click.option(
    "--readings",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Readings of gruard run --keep-readings.  [default: readings in the store]",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="State folder of the run, with its alarms and what you said of them; without one, every "
    "alarm counts as disputed.  [default: STATE_DIRECTORY, which systemd sets]",
)
@false_alarms_option
@click.option(
    "--promote",
    type=click.Choice(["managed", "manual"]),
    default="managed",
    show_default=True,
    help="managed: put a better detector on trial. manual: only write it.",
)
@json_option
def relearn(
    store: Path, readings: Path | None, state: Path | None, wish: float, promote: str, as_json: bool
) -> None:
    """Learn again from what was healthy since, and replace the detector if the new one is better.

    The readings of the last 35 days are judged by the current bundle. Rows in alarm, muted, or
    around an alarm that nobody marked as false are left out (gruard mark, gruard accept). A linear
    detector is learned from the others. It is kept out if it raises too many alarms on healthy rows
    that it has not seen, if it misses injected faults that the current one finds, or if a channel
    has crept for days, because a slow fault would be learned as normal.

    \b
    Exit code 0: promoted. 3: kept out, and the current bundle stays. 1: this machine computes wrong
    steps. 2: a problem you can fix. Except for 0, nothing has changed.
    Example: gruard relearn --store /var/lib/gruard/pump/bundles --state /var/lib/gruard/pump
    """
    from edge_runtime.learning.learn import proven, write_learned
    from edge_runtime.updates.disk import locked
    from edge_runtime.updates.store import Store

    _refuse_signed(promote)
    opened = Store(store, log=warn)
    current = _current(opened)
    with locked(store / "relearn.lock", patience=0.0):
        decision = _decide(opened, current, readings or store / "readings", state, wish)
        facts = _facts(decision)
        candidate = decision.candidate
        if candidate is None or not decision.promoted:
            _tell(as_json, facts, f"kept out: {decision.reason}", _KEPT_OUT)
        learned = proven(candidate.run, candidate.measured, _say)
        if not learned.passed:
            reason = "the steps differ from the formula; check the memory of this machine"
            _tell(as_json, {**facts, "promoted": False, "reason": reason}, reason, _FAILED)
        written = write_learned(learned, _waiting(store), force=True)
        place, words = _promoted(opened, written, promote)
    _tell(as_json, {**facts, "bundle": str(place)}, words, 0)


def _refuse_signed(promote: str) -> None:
    if promote == "managed" and os.environ.get(TRUSTED_KEYS):
        raise GruardError(
            f"{TRUSTED_KEYS} is set, and a bundle learned here has no signature; use --promote "
            "manual, sign the bundle and install it"
        )


def _current(store: Store) -> Bundle:
    from edge_runtime.bundle.reader import read_bundle

    pointers = store.pointers()
    if pointers.current is None:
        raise GruardError(f"{store.root}: no bundle is installed; gruard install puts one there")
    return read_bundle(store.slots.path(pointers.current), allow_failed=True, whole=False)


def _decide(
    store: Store, current: Bundle, readings: Path, state: Path | None, wish: float
) -> Decision:
    from edge_runtime.commands.first_load import open_safely
    from edge_runtime.detector.detector import Detector
    from edge_runtime.learning.answers import OwnerAnswers, read_answers, write_found
    from edge_runtime.learning.past import ahead_of, judge_past, read_past
    from edge_runtime.learning.relearn import Decision, relearned
    from edge_runtime.supervision.starts import service_folder
    from edge_runtime.updates.slots import label

    manifest = current.manifest
    if store.pointers().trial:
        return Decision("another bundle is on trial; learn again when it has proven itself")
    if manifest.period is None:
        raise GruardError(f"{label(current)}: has no sample period; learn it from data with times")
    _say(f"reading {readings}")
    counters = manifest.columns.counters
    past = read_past(readings, manifest.channel_names, counters, manifest.period, warn)
    folder = state or service_folder(os.environ, "STATE_DIRECTORY")
    answers = OwnerAnswers() if folder is None else read_answers(folder, ahead_of(readings, past))
    _say(f"judging {len(past.times):,} rows by {label(current)}")
    judged = judge_past(open_safely(current), past, [span.end for span in answers.accepted])
    model = Detector(current).model
    decision = relearned(past, judged, answers, model, _next_version(store, current), wish, _say)
    if folder is not None:
        names = [manifest.channels[creep.channel].name for creep in decision.creeps]
        write_found(folder, names, float(past.times[-1]), decision.left_out)
    return decision


def _next_version(store: Store, current: Bundle) -> int:
    name = current.manifest.name
    manifests = [slot.bundle.manifest for slot in store.slots if slot.bundle]
    return 1 + max([store.lowest(name), *(m.version for m in manifests if m.name == name)])


def _waiting(store: Path) -> Path:
    """Return the folder for a candidate, without what an interrupted command has left there."""
    import shutil

    folder = store / "relearned"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _promoted(store: Store, written: Path, promote: str) -> tuple[Path, str]:
    """Return where the bundle is in the end, and the result in one line."""
    from edge_runtime.bundle.reader import read_bundle

    if promote == "manual":
        return written, f"written: {written}; gruard install {written} --store {store.root}"
    from edge_runtime.commands.store import outcome

    bundle = read_bundle(written)
    words = outcome(bundle, store.install(bundle), store.root)
    _waiting(store.root)
    return store.slots.path(bundle.digest), words


def _facts(decision: Decision) -> dict[str, object]:
    found = decision.comparison
    facts: dict[str, object] = {
        "promoted": decision.promoted,
        "reason": decision.reason,
        "learned_days": round(decision.learned_days, 3),
    }
    return facts | (vars(found) if found else {})


def _say(sentence: str) -> None:
    click.echo(f"… {sentence}", err=True)


def _tell(as_json: bool, facts: dict[str, object], words: str, code: int) -> NoReturn:
    click.echo(json.dumps(facts) if as_json else words)
    sys.exit(code)
