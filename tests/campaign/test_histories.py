"""Histories of concurrent commands in small, and that the model sees every impossible one."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edge_runtime.updates.pointers import Pointers, Rejected, Trial
from tests.campaign import histories
from tests.campaign.history_model import (
    Command,
    History,
    JournalRead,
    Look,
    Watched,
    broken_promises,
)
from tests.campaign.lab import Lab

A, B, C = (letter * 64 for letter in "abc")
MODELS = {A: "model a", B: "model b", C: "model c"}


@pytest.mark.long
def test_histories_hold_in_small(lab: Lab) -> None:
    (row,) = histories.run(lab, seed=3, scale=2 / histories.HISTORIES)
    assert row.held, row.happened
    assert "2 histories" in row.injected
    assert multiprocessing.get_context("forkserver") is not None


def record(index: int, model: str = "model a", **changes: Any) -> dict[str, Any]:
    return {
        "index": index, "tier": 1, "flags": [], "valid": True, "score": 1.0, "model": model,
        "masked": [], **changes,
    }  # fmt: skip


def entries(*numbers: int) -> tuple[tuple[int, bytes], ...]:
    return tuple((number, b"%d" % number) for number in numbers)


GOOD = History(
    MODELS,
    [
        Command("install", A, 0, 1, 0),
        Command("run", "", 1.5, 9, 0),
        Command("install", B, 2, 3, 0),
        Command("use", C, 4, 4.2, 2, "gruard: there is none"),
        Command("install", C, 6, 6.1, None),
        Command("rollback", "", 7, 7.5, 0),
    ],
    [
        Look(0.1, Pointers()),
        Look(0.9, Pointers(A)),
        Look(2.9, Pointers(A, trial=Trial(B, 3))),
        Look(5.0, Pointers(B, A)),  # attempted and proven by the run
        Look(7.2, Pointers(A, B, rejected=Rejected(B, "rolled back by command"))),
    ],
    [Watched(1.5, 9, False, [record(0), record(1, "model b")])],
    [JournalRead(2, 2.1, entries(1, 2)), JournalRead(8, 8.1, entries(1, 2, 3))],
    [1, 1, 2],
)


def looks(*changed: Look, at: int) -> Callable[[History], History]:
    return lambda h: replace(h, looks=[*h.looks[:at], *changed, *h.looks[at + 1 :]])


def commands(change: Callable[[list[Command]], None]) -> Callable[[History], History]:
    def spoil(history: History) -> History:
        changed = list(history.commands)
        change(changed)
        return replace(history, commands=changed)

    return spoil


def records(*rows: dict[str, Any]) -> Callable[[History], History]:
    return lambda history: replace(history, runs=[replace(history.runs[0], records=rows)])


def reads(*found: Sequence[tuple[int, bytes]]) -> Callable[[History], History]:
    return lambda history: replace(
        history, reads=[JournalRead(i, i + 0.5, each) for i, each in enumerate(found)]
    )


def refused_with_effect(found: list[Command]) -> None:
    found[2] = replace(found[2], code=2, said="gruard: no")


def done_without_effect(found: list[Command]) -> None:
    found.append(Command("use", C, 8, 8.5, 0))


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (looks(Look(5, Pointers(), "pointers.json: damaged"), at=3), "damaged"),
        (looks(Look(5.0, Pointers(C, A)), at=3), "no command leads"),
        (looks(Look(2.9, Pointers(A, trial=Trial(B, 9))), at=2), "no command leads"),
        (commands(refused_with_effect), "no command leads"),
        (commands(done_without_effect), "nothing changed"),
        (commands(lambda found: found.append(Command("list", "", 8, 9, -1))), "exit code -1"),
        (
            commands(lambda found: found.append(Command("list", "", 8, 9, 2))),
            "without an error message",
        ),
        (
            commands(lambda found: found.append(Command("list", "", 8, 9, 0, "Traceback"))),
            "traceback",
        ),
        (records(record(0), record(2)), "indices are not"),
        (records(record(0, "model x")), "model x answered"),
        (records(), "no record"),
        (reads(entries(1, 3)), "gaps or disorder"),
        (reads(entries(1, 2), entries(1)), "lacks entries of an earlier read"),
        (reads(entries(1, 2), ((1, b"1"), (2, b"another"))), "lacks entries of an earlier read"),
        (lambda history: replace(history, floors=[2, 1]), "fell from 2 to 1"),
    ],
)
def test_the_model_bites(spoil: Callable[[History], History], seen: str) -> None:
    assert broken_promises(GOOD) == []
    assert any(seen in broken for broken in broken_promises(spoil(GOOD)))


def test_a_model_of_another_time_is_seen() -> None:
    early = Watched(1.5, 1.9, False, [record(0, "model b")])
    assert broken_promises(replace(GOOD, runs=[early])) == [
        "run at 1.500 s: model model b answered, which no command had chosen"
    ]
