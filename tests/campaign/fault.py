"""The data types of the campaign, and the promises that hold for every fault.

A `Fault` is one fault with one outcome. A `Part` injects many faults of a kind, and sums them up in
rows that name the worst case. To add one, write `run(lab, seed, scale) -> rows` and list it in
`tests/campaign/__main__.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.campaign.lab import Lab

Json = dict[str, Any]
Happened = str
"""A description of what happened; a broken promise raises NotHeldError instead."""


class NotHeldError(Exception):
    """A promise was broken; the text says how."""


@dataclass(frozen=True)
class Fault:
    """injected, must: for the table. strike: injects, checks, and returns what happened."""

    name: str
    injected: str
    must: str
    strike: Callable[["Lab"], Happened]


@dataclass(frozen=True)
class Row:
    """One line of docs/reliability.md.

    happened: with counts. worst: the worst single case, empty if `happened` is one case. held:
    whether all promises held.
    """

    name: str
    injected: str
    must: str
    happened: str
    worst: str = ""
    held: bool = True


@dataclass(frozen=True)
class Part:
    """A kind of fault that is injected many times over.

    title: of its table. run: inject with random numbers from `seed`; scale 1.0 is the full
    campaign, the tests use a small fraction. `run` does not raise for a broken promise; its row is
    not held and says how to repeat it.
    """

    title: str
    run: Callable[["Lab", int, float], Iterable[Row]]


def expect(held: bool, seen: str) -> None:
    """Raise NotHeldError(seen) unless `held`."""
    if not held:
        raise NotHeldError(seen)


def check_promises(records: Sequence[Json], exogenous: Sequence[str] = ()) -> None:
    """Check that there is one record per index, in order, and that each says what answered (I1-I3).

    exogenous: channels without a gate, for which there are no flags.
    """
    indices = [record["index"] for record in records]
    expect(indices == list(range(len(records))), f"indices are not 0 … n: {_odd(indices)}")
    for record in records:
        index, flags = record["index"], record["flags"]
        fallback = record["tier"] == 3
        expect(not (fallback and record["valid"]), f"record {index}: valid in tier 3")
        expect("FALLBACK" in flags or not fallback, f"record {index}: tier 3 without its flag")
        expect(record["valid"] or fallback, f"record {index}: tier {record['tier']}, not valid")
        expect(bool(record["model"]) or fallback, f"record {index}: names no model")
        # Without any usable bundle there is no model to name and no score.
        unscored = "GAP" in flags or (fallback and not record["model"])
        expect(record["score"] is not None or unscored, f"record {index}: no score, no gap")
        marked = {"IMPUTED", "FREE_RUN", "RESYNC", "FALLBACK"} & set(flags)
        unusable = {*record["masked"]} - {*exogenous}
        expect(not unusable or bool(marked), f"record {index}: masked, and not marked")


def _odd(indices: Sequence[int]) -> str:
    wrong = next((i for i, index in enumerate(indices) if index != i), len(indices))
    return f"place {wrong} has {indices[wrong : wrong + 3]}"


def is_marked(record: Json, channel: str | None = None) -> bool:
    """Return whether a record warns: alarm, lower tier, masked or imputed channel."""
    doubted = {*record["masked"], *record["imputed"]}
    about = bool(doubted) if channel is None else channel in doubted
    return bool(record["alarm"] or record["tier"] > 1 or about)


def first_marked(records: Sequence[Json], start: int, channel: str | None = None) -> int | None:
    """Return the samples from `start` to the first marked record, or None."""
    found = (r["index"] - start for r in records[start:] if is_marked(r, channel))
    return next(found, None)
