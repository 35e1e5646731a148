"""Instructions, cycles and memory of a step on two emulated boards, by width and kernel.

    python -m benchmarks.board_cost [--units 16 --units 32 …] [--out docs]   (make benchmark-board)

The networks are gruard's own, with and without gate, trained for a moment on the simulated pump (8
channels); the weights do not change the counts. TensorFlow Lite Micro's arena is measured on this
machine for the same network.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from benchmarks.pages import fill_page, markdown
from benchmarks.step import made_bundle
from convert.audit.micro import NoTrial, micro_trial
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.golden import ROWS
from firmware_harness.cost import (
    SUBJECTS,
    WAITS,
    Cost,
    Subject,
    duty,
    macs,
    measure,
    slow_cycles,
)

UNITS = (16, 32, 64, 128)
MODELS: dict[Literal["gated", "gru"], str] = {"gated": "gate and GRU", "gru": "GRU alone"}
HEAD = (
    "network", "multiply-accumulates", "kernel", "instructions: network",
    "a multiply-accumulate", "whole step", "over the network", "at most",
    "cycles, about", f"with {WAITS} wait states", "at 1 kHz on 80 MHz", "code, bytes",
    "state, bytes", "stack, bytes", "TFLM's arena, bytes",
)  # fmt: skip


def micro_arena(bundle: Bundle) -> str:
    """Return the bytes of TensorFlow Lite Micro's arena for the network, if it is installed."""
    trial = micro_trial(bundle.model)
    return "–" if isinstance(trial, NoTrial) else f"{trial.arena:,}"


def costs(bundle: Bundle) -> dict[str, Cost]:
    """Measure the cost of a step of `bundle` by kernel."""
    rows = bundle.arrays("golden.npz")[ROWS]

    def of(subject: Subject) -> Cost:
        click.echo(f"{bundle.path.name}: {subject.name}", err=True)
        return measure(bundle, subject, rows)

    return {subject.name: of(subject) for subject in SUBJECTS}


def lines(label: str, bundle: Bundle, found: dict[str, Cost]) -> list[list[str]]:
    """A line of the table for each kernel."""
    products, arena = macs(bundle), micro_arena(bundle)
    return [
        [label, f"{products:,}", name, *_cells(cost, products), arena]
        for name, cost in found.items()
    ]


def _cells(cost: Cost, products: int) -> list[str]:
    network = cost.parts["network"]
    return [
        f"{network:,}",
        f"{network / products:.2f}",
        f"{cost.step:,}",
        f"×{cost.step / network:.2f}",
        f"{cost.largest:,}",
        f"{cost.cycles.at_once:,}",
        f"{slow_cycles(cost):,}",
        f"{duty(slow_cycles(cost)):.0%}",
        f"{cost.text:,}",
        f"{cost.memory:,}",
        f"{cost.stack:,}",
    ]


def picture(units: Sequence[int], found: Sequence[dict[str, Cost]], file: Path) -> None:
    """Instructions of the gated network over its width, a line for each kernel."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name in found[0]:
        axis.plot(units, [cost[name].parts["network"] for cost in found], "o-", label=name)
    axis.set(xlabel="recurrent units", ylabel="instructions of the network", xscale="log")
    axis.set(yscale="log", xticks=units, xticklabels=units)
    axis.minorticks_off()
    axis.legend()
    figure.savefig(file, dpi=110, metadata={"Software": ""})
    plt.close(figure)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--units", multiple=True, default=UNITS, show_default=True, type=int)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of firmware.md, to fill in.")
def main(units: tuple[int, ...], out: Path | None) -> None:
    """Count the instructions of a step on both boards."""
    body, gated = list[list[str]](), list[dict[str, Cost]]()
    with tempfile.TemporaryDirectory() as folder:
        for model, label in MODELS.items():
            for count in units:
                bundle = made_bundle(count, Path(folder), model)
                found = costs(bundle)
                body += lines(f"{label}, H = {count}", bundle, found)
                if model == "gated":
                    gated.append(found)
    table = markdown(HEAD, body)
    click.echo(table)
    if out:
        fill_page(out / "firmware.md", table, "cost")
        picture(units, gated, out / "board-cost.png")


if __name__ == "__main__":
    main()
