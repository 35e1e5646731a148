"""The model of a type beside an asset's own: false alarms, and faults found, by hours of data.

    python -m benchmarks.fleet_types [--assets 6] [--out docs/fleet-costs.md] (make benchmark-types)

Simulated pumps whose sensors differ in level and spread, one sample every ten seconds. The type is
learned from a day of each of ten pumps. Other pumps are learned from their first hours, and judged
on two later days, and on later rows with faults of the simulation, which nobody has learned from.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from benchmarks.pages import fill_page, machine, markdown, page_option
from edge_runtime.columns import NOTHING_SAID
from edge_runtime.detector.alarm import PAUSE, alarm_stretches
from edge_runtime.learning.learn import Learned, learn, linear_run
from edge_runtime.learning.recording import Dataset, Recording
from edge_runtime.learning.request import LARGEST_GAP, Data
from edge_runtime.learning.rollout import roll
from edge_runtime.learning.settings import ChannelSettings, Settings
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.learning.split import split_by_time
from fleet.shared import SharedModel, compared, learn_type, own_is_trial, shared_for
from fleet.simulate import differing
from train.simulate import ALL_KINDS, MACHINE_KINDS, SETTINGS, simulate, simulate_faults

PART = "types"
PERIOD, TARGET = 10.0, 1.0  # seconds; false alarms a day
HOUR = round(3600 / PERIOD)
HOURS = {"1 h": HOUR, "6 h": 6 * HOUR, "1 day": 24 * HOUR}
LATER, BETWEEN = 48 * HOUR, 200  # rows
FAULTS, EVERY = 24, 1000  # with a row each so many
SETTLING = 5  # rows after a fault in which its alarm may begin
FIRST = 1000  # seed of the pumps that are judged


@dataclass(frozen=True)
class PumpResult:
    """One detector on one pump. found: by fault; machine: whether it is a fault of the machine."""

    false_alarms: float  # a day
    found: tuple[bool, ...]
    machine: tuple[bool, ...]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--assets", default=6, show_default=True, type=click.IntRange(1, 100))
@click.option("--members", default=10, show_default=True, type=click.IntRange(5, 50))
@page_option(PART)
def main(assets: int, members: int, out: Path | None) -> None:
    """Judge the type's model, an asset's own, and the one that is chosen."""
    days = [data_of(pump(seed, HOURS["1 day"])) for seed in range(1, members + 1)]
    found = learn_type(days, "pump", 1, TARGET, say)
    model = SharedModel(found.learned.manifest, found.alignment)
    results: dict[tuple[str, str], list[PumpResult]] = defaultdict(list)
    taken = dict.fromkeys(HOURS, 0)
    for seed in range(FIRST, FIRST + assets):
        for hours, rows in HOURS.items():
            for name, detector in detectors(model, seed, rows):
                results[hours, name].append(judged(detector, seed, rows))
                taken[hours] += name == "chosen" and detector.manifest.forecast == (
                    model.manifest.forecast
                )
            click.echo(f"pump {seed}, {hours}", err=True)
    text = (
        f"{machine()}; a type of {members} pumps, {assets} other pumps.\n\n"
        f"{table(results, taken, assets)}"
    )
    if out is not None:
        fill_page(out, text, PART)
    click.echo(text)


def pump(seed: int, rows: int) -> Recording:
    """The first `rows` of a healthy pump."""
    return replace(differing(simulate(rows, seed), seed), times=None, period=PERIOD)


def data_of(recording: Recording) -> Data:
    """Split a recording as a command does."""
    channels = {
        name: ChannelSettings(str(each["unit"]), None, None, None, None, "exogenous" in each)
        for name, each in SETTINGS.items()
    }
    split = split_by_time([recording], gap=min(LARGEST_GAP, recording.rows // 50))
    settings = Settings(PERIOD, channels)
    return Data(Dataset((recording,)), split, settings, PERIOD, (), NOTHING_SAID)


def detectors(model: SharedModel, seed: int, rows: int) -> Iterator[tuple[str, Learned]]:
    """The three detectors of a pump, by name."""
    data = data_of(pump(seed, rows))
    own = learn(linear_run(data, "own", 0, say), 1, TARGET, say)
    of_type = shared_for(model, data, "type", 1, TARGET, say)
    better = own_is_trial(data) or compared(of_type, own, data, TARGET)[0]
    yield "its own model", own
    yield "the model of the type", of_type
    yield "chosen", of_type if better else own


def judged(detector: Learned, seed: int, rows: int) -> PumpResult:
    """Judge on later rows of the pump: healthy ones, and ones with faults."""
    model = shipped_model(detector.manifest, b"")
    start = rows + BETWEEN
    healthy = pump(seed, start + LATER).values[start:]
    alarms = alarm_stretches(roll(model, healthy).alarm, PAUSE)
    made = simulate_faults(FAULTS * EVERY, seed + FIRST, ALL_KINDS, EVERY)
    alarm = roll(model, differing(made.recording, seed).values).alarm
    begins = alarm & ~np.concatenate([[False], alarm[:-1]])
    return PumpResult(
        false_alarms=len(alarms) * 86400 / (LATER * PERIOD),
        found=tuple(bool(begins[e.start : e.stop + SETTLING].any()) for e in made.events),
        machine=tuple(e.kind in MACHINE_KINDS for e in made.events),
    )


def table(
    results: dict[tuple[str, str], list[PumpResult]], taken: dict[str, int], assets: int
) -> str:
    """One line for each detector and length."""
    lines = []
    for (hours, name), found in results.items():
        every = np.concatenate([each.found for each in found])
        machine_fault = np.concatenate([each.machine for each in found])
        alarms = [each.false_alarms for each in found]
        shown = f"{name}: the type's for {taken[hours]} of {assets}" if name == "chosen" else name
        lines.append(
            (hours, shown, f"{np.mean(alarms):.2f}", f"{max(alarms):.1f}", f"{every.mean():.0%}",
             f"{every[machine_fault].mean():.0%}")
        )  # fmt: skip
    header = ("data", "detector", "false alarms a day", "of the worst pump", "faults found",
              "faults of the machine")  # fmt: skip
    return markdown(header, lines)


def say(sentence: str) -> None:
    """Progress is shown by pump."""


if __name__ == "__main__":
    main()
