"""Ten thousand faults of random kind, place, size and length.

A reading that was destroyed must be marked in its own record. A reading that was changed may go
unnoticed; the share of noticed faults is reported by kind.
"""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import click
import numpy as np

from tests.campaign.fault import Json, NotHeldError, check_promises, expect
from tests.campaign.lab import Lab, Run

SPACING, LONGEST = 80, 12
WARM = 200  # samples before the first injection of a run
BY_RUN = 250  # injections in one run; then its inference process is killed
TAIL = 60
DESTROYED = ("gone", "infinite", "garbage", "all gone", "cut line", "left out")
CHANGED = ("level", "spike", "noise", "stuck", "scaled", "exchanged")


@dataclass(frozen=True)
class Injection:
    """A fault from sample `start` on, `length` samples, of `size` σ where that means anything."""

    kind: str
    start: int
    length: int
    channel: int
    size: float


@dataclass
class Tally:
    """The results of all injections. undecided: channel and alarm were marked before the fault.

    stalled: runs that are left out, because the host fed them too late.
    """

    injected: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)
    undecided: Counter[str] = field(default_factory=Counter)
    unmarked: int = 0
    missing: int = 0
    records: int = 0
    processes: int = 0
    stalled: int = 0
    broken: list[str] = field(default_factory=list)  # promises, each of a whole run

    @property
    def held(self) -> bool:
        """Whether every record was there, and marked where it had to be, in at least one run."""
        none = self.stalled and not self.records
        return not (self.unmarked or self.missing or self.broken or none)


def campaign(lab: Lab, count: int, seed: int = 0) -> Tally:
    """Inject `count` faults in several runs; Ctrl-C ends with the results so far."""
    rng, tally = np.random.default_rng(seed), Tally()
    for done in range(0, count, BY_RUN):
        click.echo(f"random faults: {done} of {count}", err=True)
        try:
            _one_run(lab, rng, min(BY_RUN, count - done), tally)
        except NotHeldError as seen:
            tally.broken.append(str(seen))
        except KeyboardInterrupt:
            break
    return tally


def _one_run(lab: Lab, rng: np.random.Generator, count: int, tally: Tally) -> None:
    plan = list(_plan(lab, rng, count))
    rows = np.resize(lab.rows, (WARM + (count + 1) * SPACING, len(lab.channels)))
    lines, expected = _lines(lab, rows.copy(), plan, rng)
    with lab.run() as run:
        for line in lines:
            run.send(line)
        run.await_records(expected)
        _kill(run, rng, tally)
    check_promises(run.records)
    if has_stalled(run.records, expected + TAIL, len(rows) - len(lines)):
        tally.stalled += 1
        return
    tally.missing += expected + TAIL - len(run.records)
    tally.records += len(run.records)
    for injection in plan:
        _judge(lab, injection, run.records, tally)


def has_stalled(records: Sequence[Json], samples: int, left_out: int) -> bool:
    """Return whether a run has gap records because its feeder paused, which shifts its rows.

    left_out: samples that were never sent. Raises NotHeldError when gaps do not explain all
    surplus records.
    """
    surplus = len(records) - samples
    gaps = sum("GAP" in record["flags"] for record in records) - left_out
    expect(surplus <= max(gaps, 0), f"{surplus} records too many, and {gaps} gaps of a pause")
    return surplus > 0


def _plan(lab: Lab, rng: np.random.Generator, count: int) -> Iterator[Injection]:
    scored = [i for i, c in enumerate(lab.bundle.manifest.channels) if not c.exogenous]
    for number in range(count):
        yield Injection(
            str(rng.choice(DESTROYED + CHANGED)),
            WARM + number * SPACING,
            int(rng.integers(1, LONGEST)),
            int(rng.choice(scored)),
            float(rng.choice([-1, 1]) * rng.uniform(2, 20)),
        )


def _lines(
    lab: Lab, rows: np.ndarray, plan: list[Injection], rng: np.random.Generator
) -> tuple[list[str], int]:
    """Return the lines of a run, and the number of records that it must give: one per row."""
    for injection in plan:
        _spoil(lab, rows, injection, rng)
    lines = [lab.line(index * lab.period, row) for index, row in enumerate(rows)]
    for injection in plan:
        span = range(injection.start, injection.start + injection.length)
        for index in span:
            lines[index] = _broken(lines[index], injection)
    return [line for line in lines if line], len(rows)


def _broken(line: str, injection: Injection) -> str:
    """Return the line with a fault of its text; empty if it is not sent."""
    match injection.kind:
        case "left out":
            return ""
        case "cut line":
            return line.rpartition(",")[0]
        case "garbage":
            cells = line.split(",")
            cells[1 + injection.channel] = "#?!"
            return ",".join(cells)
        case _:
            return line


def _spoil(lab: Lab, rows: np.ndarray, injection: Injection, rng: np.random.Generator) -> None:
    channel, length = injection.channel, injection.length
    part = rows[injection.start : injection.start + length]
    spread = lab.bundle.manifest.channels[channel].scale
    match injection.kind:
        case "gone":
            part[:, channel] = np.nan
        case "infinite":
            part[:, channel] = np.inf
        case "all gone":
            part[:] = np.nan
        case "level":
            part[:, channel] += injection.size * spread
        case "spike":
            part[0, channel] += injection.size * spread
        case "noise":
            part[:, channel] += abs(injection.size) * spread * rng.standard_normal(length)
        case "stuck":
            part[:, channel] = part[0, channel]
        case "scaled":
            part[:, channel] *= injection.size
        case "exchanged":
            other = (channel + 1) % part.shape[1]
            part[:, [channel, other]] = part[:, [other, channel]]
        case _:
            pass  # a fault of the text


def _kill(run: Run, rng: np.random.Generator, tally: Tally) -> None:
    """Kill the worker; until it is back, no record may look like the model's."""
    start = len(run.records)
    run.kill_worker(rng.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP]))
    for index in range(start, start + TAIL):
        row = run.lab.rows[index % len(run.lab.rows)]
        run.send(run.lab.line(index * run.lab.period, row))
        run.await_records(index + 1)
    tally.processes += 1
    for record in run.records[start:]:
        if "RESTARTED" in record["flags"]:
            break
        tally.unmarked += record["tier"] != 3


def _judge(lab: Lab, injection: Injection, records: list[Json], tally: Tally) -> None:
    start, kind = injection.start, injection.kind
    span = records[start : start + injection.length]
    tally.injected[kind] += 1
    if kind in DESTROYED:
        seen = [_is_told(record, injection) for record in span]
        tally.unmarked += seen.count(False)
        tally.noticed[kind] += all(seen)
        return
    before = _marks(records[start - 1])
    after = records[start : start + injection.length + 5]
    if any(_marks(record) - before for record in after):
        tally.noticed[kind] += 1
    elif {"alarm", lab.channels[injection.channel]} <= before:
        tally.undecided[kind] += 1


def _marks(record: Json) -> set[str]:
    """Return the warnings of a record: channels, an alarm, a lower tier."""
    tier = {f"tier {number}" for number in range(2, record["tier"] + 1)}
    alarm = {"alarm"} if record["alarm"] else set()
    return {*record["masked"], *record["imputed"], *record["blamed"]} | tier | alarm


def _is_told(record: Json, injection: Injection) -> bool:
    return "GAP" in record["flags"] or bool(record["masked"])


def tally_text(tally: Tally) -> str:
    """The campaign as Markdown."""
    lines = ["| kind | injected | noticed | share | undecided |", "|---|---|---|---|---|"]
    for kind in DESTROYED + CHANGED:
        decided = tally.injected[kind] - tally.undecided[kind]
        share = f"{100 * tally.noticed[kind] / decided:.1f} %" if decided else "-"
        cells = (tally.injected[kind], tally.noticed[kind], share, tally.undecided[kind])
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} |")
    total = sum(tally.injected.values()) + tally.processes
    lines += [
        "",
        f"{total:,} injections ({tally.processes} of them into the inference process), "
        f"{tally.records:,} records: {tally.missing} missing, {tally.unmarked} unmarked.",
    ]
    if tally.stalled:
        lines += ["", f"{tally.stalled} more runs are left out: the host fed them too late."]
    if tally.broken:
        runs = "; ".join(tally.broken)
        lines += ["", f"**NOT HELD** in {len(tally.broken)} more runs, which are left out: {runs}"]
    return "\n".join(lines)
