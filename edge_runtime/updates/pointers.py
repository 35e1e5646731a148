"""Which slot runs, which one is on trial and which one to go back to: a pure state machine.

No disk and no clock: every event gives the next value. All pointers are in one file of the store
(`copies`), so that one rename moves them all at once.

    chosen ─→ trial ─ proven ─→ current ─ another one proven ─→ previous
                └─ failed ─→ rejected, and current stays what it was
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge_runtime.errors import GruardError

ATTEMPTS = 3
"""Loads a trial may take until it has proven itself."""

DIGEST = re.compile("[0-9a-f]{64}")
_BY_COMMAND = "gone back by command"


@dataclass(frozen=True)
class Trial:
    """A slot that has to prove itself. attempts: loads that are left, without one under way."""

    slot: str
    attempts: int


@dataclass(frozen=True)
class Rejected:
    """The slot that was gone back from last, and why."""

    slot: str
    reason: str


@dataclass(frozen=True)
class Pointers:
    """Slots by the SHA-256 of their manifests. Without a current one the store is empty.

    An event about a slot that is not on trial (any more) changes nothing.
    """

    current: str | None = None
    previous: str | None = None
    trial: Trial | None = None
    rejected: Rejected | None = None

    @property
    def kept(self) -> frozenset[str]:
        """Slots that are still needed."""
        trial = self.trial.slot if self.trial else None
        return frozenset(slot for slot in (self.current, self.previous, trial) if slot)

    def on_trial(self, slot: str) -> bool:
        """Whether `slot` is the one that has to prove itself."""
        return self.trial is not None and self.trial.slot == slot

    def chosen(self, slot: str, attempts: int = ATTEMPTS) -> Pointers:
        """`slot` is wanted: on trial, or at once where there is nothing to go back to."""
        rejected = None if self.rejected and self.rejected.slot == slot else self.rejected
        if self.current is None:
            return Pointers(current=slot)
        trial = None if slot == self.current else Trial(slot, attempts)
        return replace(self, trial=trial, rejected=rejected)

    def attempted(self, slot: str) -> Pointers:
        """`slot` is about to be loaded. Raises ValueError when no attempt is left for it."""
        if self.trial is None or self.trial.slot != slot:
            return self
        if self.trial.attempts < 1:
            raise ValueError("no attempt is left")
        return replace(self, trial=Trial(slot, self.trial.attempts - 1))

    def spared(self, slot: str) -> Pointers:
        """The run of `slot` ended in good order before the trial did: its attempt counts not."""
        if self.trial is None or self.trial.slot != slot:
            return self
        return replace(self, trial=Trial(slot, self.trial.attempts + 1))

    def proven(self, slot: str) -> Pointers:
        """`slot` was healthy for long enough."""
        if not self.on_trial(slot):
            return self
        return replace(self, current=slot, previous=self.current, trial=None)

    def failed(self, slot: str, reason: str) -> Pointers:
        """`slot` did not prove itself."""
        if not self.on_trial(slot):
            return self
        return replace(self, trial=None, rejected=Rejected(slot, reason))

    def replaced(self, slot: str, reason: str) -> Pointers:
        """`slot` takes the place of a current one that cannot be used any more."""
        if self.current is None or slot == self.current:
            return self
        return Pointers(
            slot,
            previous=None if self.previous == slot else self.previous,
            trial=None if self.on_trial(slot) else self.trial,
            rejected=Rejected(self.current, reason),
        )

    def gone_back(self) -> Pointers:
        """The user wants the trial ended or, without one, the previous slot.

        Going back once more undoes the latter. Raises GruardError when there is nothing to go
        back to.
        """
        if self.trial is not None:
            return self.failed(self.trial.slot, _BY_COMMAND)
        if self.previous is None or self.current is None:
            raise GruardError("there is no bundle to go back to; see gruard list")
        rejected = Rejected(self.current, _BY_COMMAND)
        return Pointers(self.previous, self.current, rejected=rejected)


def to_facts(pointers: Pointers) -> dict[str, Any]:
    """The pointers as plain JSON types."""
    return asdict(pointers)


def from_facts(facts: Mapping[str, Any]) -> Pointers:
    """Inverse to `to_facts`. Raises ValueError when they are no pointers of ours."""
    try:
        trial, rejected = facts["trial"], facts["rejected"]
        pointers = Pointers(
            **{
                **facts,
                "trial": None if trial is None else Trial(**trial),
                "rejected": None if rejected is None else Rejected(**rejected),
            }
        )
    except (TypeError, KeyError):
        raise ValueError("other fields") from None
    _check(pointers)
    return pointers


def _check(pointers: Pointers) -> None:
    slots: list[Any] = [slot for slot in (pointers.current, pointers.previous) if slot is not None]
    if pointers.trial:
        slots.append(pointers.trial.slot)
        if type(pointers.trial.attempts) is not int or pointers.trial.attempts < 0:
            raise ValueError("no number of attempts")
    if pointers.rejected:
        slots.append(pointers.rejected.slot)
        if not isinstance(pointers.rejected.reason, str):
            raise ValueError("no reason")
    if not all(isinstance(slot, str) and DIGEST.fullmatch(slot) for slot in slots):
        raise ValueError("no digest")
    if pointers.current is None and pointers != Pointers():
        raise ValueError("nothing is current")
