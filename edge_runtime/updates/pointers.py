"""Which slot runs, which one is on trial and which one to roll back to: a pure state machine.

Every event returns the next value; no disk, no clock. All pointers are in one file of the store
(`store.Copies`), so one rename moves them together.

    chosen ─→ trial ─ proven ─→ current ─ another one proven ─→ previous
                └─ failed ─→ rejected, and current stays what it was
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge_runtime.errors import GruardError

ATTEMPTS = 3
"""Loads that a trial may take until it is proven."""

DIGEST = re.compile("[0-9a-f]{64}")
_BY_COMMAND = "rolled back by command"


@dataclass(frozen=True)
class Trial:
    """A slot on trial. attempts: loads that are left, not counting one under way."""

    slot: str
    attempts: int


@dataclass(frozen=True)
class Rejected:
    """The slot that was rolled back last, and why."""

    slot: str
    reason: str


@dataclass(frozen=True)
class Pointers:
    """Slots, named by the SHA-256 of their manifests. The store is empty when `current` is None.

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
        """Whether `slot` is on trial."""
        return self.trial is not None and self.trial.slot == slot

    def chosen(self, slot: str, attempts: int = ATTEMPTS) -> Pointers:
        """Put `slot` on trial, or make it current when the store is empty."""
        rejected = None if self.rejected and self.rejected.slot == slot else self.rejected
        if self.current is None:
            return Pointers(current=slot)
        trial = None if slot == self.current else Trial(slot, attempts)
        return replace(self, trial=trial, rejected=rejected)

    def attempted(self, slot: str) -> Pointers:
        """Count a load of `slot`, before it. Raises ValueError when no attempt is left."""
        if self.on_trial(slot) and self.trial and self.trial.attempts < 1:
            raise ValueError("no attempt is left")
        return self._with_attempts(slot, -1)

    def spared(self, slot: str) -> Pointers:
        """Give one attempt back: the run of `slot` ended in good order before its trial did."""
        return self._with_attempts(slot, 1)

    def _with_attempts(self, slot: str, more: int) -> Pointers:
        if self.trial is None or self.trial.slot != slot:
            return self
        return replace(self, trial=Trial(slot, self.trial.attempts + more))

    def proven(self, slot: str) -> Pointers:
        """Make `slot` current: it was healthy for long enough."""
        if not self.on_trial(slot):
            return self
        return replace(self, current=slot, previous=self.current, trial=None)

    def failed(self, slot: str, reason: str) -> Pointers:
        """Roll `slot` back: its trial failed."""
        if not self.on_trial(slot):
            return self
        return replace(self, trial=None, rejected=Rejected(slot, reason))

    def replaced(self, slot: str, reason: str) -> Pointers:
        """Make `slot` current in place of one that cannot be used any more."""
        if self.current is None or slot == self.current:
            return self
        return Pointers(
            slot,
            previous=None if self.previous == slot else self.previous,
            trial=None if self.on_trial(slot) else self.trial,
            rejected=Rejected(self.current, reason),
        )

    def rolled_back(self) -> Pointers:
        """End the trial or, without one, make the previous slot current, on the user's command.

        A second rollback undoes the latter. Raises GruardError when no slot is left to go back to.
        """
        if self.trial is not None:
            return self.failed(self.trial.slot, _BY_COMMAND)
        if self.previous is None or self.current is None:
            raise GruardError("there is no bundle to roll back to; see gruard list")
        rejected = Rejected(self.current, _BY_COMMAND)
        return Pointers(self.previous, self.current, rejected=rejected)


def from_facts(facts: Mapping[str, Any]) -> Pointers:
    """Return pointers from what `asdict` made of them. Raises ValueError for anything else."""
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
