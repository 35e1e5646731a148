"""`python -m firmware_harness`: a bundle on a microcontroller, emulated and compared."""

import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

import click

from firmware_harness.boards import ALL, Board
from train.command import run_command

if TYPE_CHECKING:
    from firmware_harness.building import Built
    from firmware_harness.packing import Packed

PATH = click.Path(path_type=Path)
BUILDS = Path("build/firmware")


def _board(context: click.Context, option: click.Parameter, name: str | None) -> Board | None:
    return None if name is None else ALL[name]


def board_option(required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--board, as the argument `board`."""
    return click.option(
        "--board", type=click.Choice(list(ALL)), required=required, callback=_board,
        help="mps2-an386 is a Cortex-M4F, mps3-an547 a Cortex-M55.",
    )  # fmt: skip


allow_failed_option = click.option(
    "--allow-failed", is_flag=True, help="Use a bundle whose validation failed."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Put a bundle on a microcontroller, emulated, and see that it answers as everywhere else.

    \b
    python -m firmware_harness emit pump-1.gruard --out pump-c      C for your own firmware
    python -m firmware_harness build pump-1.gruard --board mps2-an386
    python -m firmware_harness run pump-1.gruard day.csv --board mps2-an386 --out records.csv
    """


@cli.command()
@click.argument("bundle", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder for the sources.")
@board_option(required=False)
@click.option(
    "--format", "form", type=click.Choice(["c", "tflm"]), default="c", show_default=True,
    help="c: the whole detector. tflm: the model alone, for TensorFlow Lite Micro.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace what an earlier emit wrote.")
@allow_failed_option
def emit(
    bundle: Path, out: Path, board: Board | None, form: str, force: bool, allow_failed: bool
) -> None:
    """Write BUNDLE as C sources, with a Makefile and a CMakeLists.txt, for your own firmware.

    Start with core/gruard.h. Nothing but string.h and a C compiler is needed, and neither heap nor
    files; the answers are those of gruard replay, bit for bit.

    Exit code 0: written, 2: bad input, or a bundle that the core cannot run.
    """
    from firmware_harness.emission import emit as write
    from firmware_harness.emission_tflm import emit_tflm
    from firmware_harness.packing import packed

    found = packed(bundle, allow_failed)
    if form == "tflm":
        click.echo(emit_tflm(found, out, force))
    else:
        write(found, out, board, force)
    click.echo(f"written: {out}")


@cli.command()
@click.argument("bundle", type=PATH)
@board_option(required=True)
@click.option("--out", type=PATH, help=f"Folder of the build.  [default: {BUILDS}/NAME-BOARD]")
@click.option("--release", is_flag=True, help="Without the faults and trials of test builds.")
@allow_failed_option
def build(bundle: Path, board: Board, out: Path | None, release: bool, allow_failed: bool) -> None:
    """Compile BUNDLE into a firmware for a board: OUT/firmware.elf.

    Exit code 0: built, 2: bad input, or a tool is missing.
    """
    from firmware_harness.building import build as compile_firmware
    from firmware_harness.building import sizes
    from firmware_harness.packing import packed

    found = packed(bundle, allow_failed)
    folder = out or BUILDS / f"{found.bundle.manifest.name}-{board.name}"
    built = compile_firmware(found, board, folder, release)
    size = sizes(built)
    click.echo(
        f"built: {built.firmware} ({size.flash} bytes of flash, of them {len(found.blob)} the "
        f"bundle; {size.memory} bytes of memory beside the detectors')"
    )


@cli.command()
@click.argument("bundle", type=PATH)
@click.argument("data", type=PATH)
@board_option(required=True)
@click.option(
    "--transport", type=click.Choice(["semihosting", "uart"]), default="semihosting",
    show_default=True, help="semihosting is fast, uart is what a real board has.",
)  # fmt: skip
@click.option("--out", default="-", metavar="FILE.csv|-", help="Records as CSV.  [default: stdout]")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@allow_failed_option
@click.option("--json", "as_json", is_flag=True, help="Summary as one JSON line on stderr.")
def run(
    bundle: Path,
    data: Path,
    board: Board,
    transport: str,
    out: str,
    force: bool,
    allow_failed: bool,
    as_json: bool,
) -> None:
    """Give the record of every row of DATA, by BUNDLE on an emulated board.

    The output is that of gruard replay, byte for byte.

    Exit code 0: every row was answered, 2: bad input, a tool is missing, or the board hangs.
    """
    from edge_runtime.record_csv import COLUMNS, cells, output, refuse_to_overwrite
    from firmware_harness import semihosting, uart
    from firmware_harness.core_records import to_records
    from firmware_harness.packing import packed
    from firmware_harness.recording import read_recording

    refuse_to_overwrite(out, force)
    found = packed(bundle, allow_failed)
    recording = read_recording(data, found.bundle.manifest)
    threshold = (found.threshold.value, found.threshold.clear)
    with _built(found, board) as built:
        began = perf_counter()
        if transport == "uart":
            with uart.running(built) as (line, _):
                records = uart.replay(line, recording.rows)
        else:
            records = semihosting.replay(built, recording.rows, threshold).records
        took = perf_counter() - began
    with output(out, force) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(map(cells, to_records(records, found, recording.times)))
    facts = {"board": board.name, "steps": len(records), "per_second": round(len(records) / took)}
    told = f"{len(records)} steps on {board.name}, {facts['per_second']} a second"
    click.echo(json.dumps(facts) if as_json else told, err=True)


@contextmanager
def _built(found: "Packed", board: Board) -> "Iterator[Built]":
    """A build that is gone afterwards."""
    from firmware_harness.building import build as compile_firmware

    with tempfile.TemporaryDirectory(prefix="gruard-") as folder:
        yield compile_firmware(found, board, Path(folder) / "build")


def main() -> NoReturn:
    """The command line."""
    run_command(cli, "firmware_harness", "interrupted; nothing was written")


if __name__ == "__main__":
    main()
