"""`python -m firmware_harness`: a bundle on an emulated microcontroller."""

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

import click

from edge_runtime.commands import ranges
from firmware_harness import ecosystems
from firmware_harness.boards import ALL, USUAL, Board
from train.console import run_command

if TYPE_CHECKING:
    from edge_runtime.bundle.manifest import Threshold
    from edge_runtime.record import Float32
    from firmware_harness.answers import Answers, Engine
    from firmware_harness.building import Built
    from firmware_harness.packing import Packed

PATH = click.Path(path_type=Path)
BUILDS = Path("build/firmware")
TFLM = "tflm"


def _board(context: click.Context, option: click.Parameter, name: str | None) -> Board | None:
    return None if name is None else ALL[name]


def _boards(context: click.Context, option: click.Parameter, names: tuple[str, ...]) -> list[Board]:
    return [ALL[name] for name in names] or list(USUAL)


BOARD = click.Choice(list(ALL))
PROCESSORS = ", ".join(f"{board.name} ({board.processor})" for board in ALL.values())


def board_option(required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--board, as the argument `board`."""
    return click.option(
        "--board", type=BOARD, required=required, callback=_board, metavar="NAME",
        help=f"One of {PROCESSORS}.",
    )  # fmt: skip


boards_option = click.option(
    "--board", "boards", type=BOARD, multiple=True, callback=_boards, metavar="NAME",
    help=f"May be repeated: {PROCESSORS}.  [default: {', '.join(each.name for each in USUAL)}]",
)  # fmt: skip


allow_failed_option = click.option(
    "--allow-failed", is_flag=True, help="Use a bundle whose validation failed."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run a bundle on an emulated microcontroller, and check that it gives the same answers.

    \b
    python -m firmware_harness emit pump-1.gruard --for arduino --out pump
    python -m firmware_harness build pump-1.gruard --board mps2-an386
    python -m firmware_harness run pump-1.gruard day.csv --board mps2-an386 --out records.csv
    python -m firmware_harness compare pump-1.gruard day.csv        the same bits everywhere?
    python -m firmware_harness watchdog pump-1.gruard day.csv       with injected faults
    python -m firmware_harness faults pump-1.gruard day.csv         with flipped bits
    python -m firmware_harness cost pump-1.gruard                   instructions and memory
    """


@cli.command()
@click.argument("bundle", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder for the sources.")
@click.option(
    "--for", "target", type=click.Choice([*ecosystems.ALL, TFLM]), default=ecosystems.CMAKE.name,
    show_default=True, help="Form of the library; tflm is only the model.",
)  # fmt: skip
@board_option(required=False)
@click.option("--force", is_flag=True, help="Replace what an earlier emit wrote.")
@allow_failed_option
def emit(
    bundle: Path, out: Path, target: str, board: Board | None, force: bool, allow_failed: bool
) -> None:
    """Write BUNDLE as a C library for your own firmware, with an example and a README.md.

    The example tests itself, reads sensors and prints alarms. The code needs a C compiler and
    string.h, but no heap and no files. Its answers are those of gruard replay, bit for bit.

    \b
    cmake        a folder for CMake or make; the example runs in QEMU
    arduino      a library for the Arduino IDE
    platformio   a library with library.json
    esp-idf      a component for ESP32
    zephyr       a module
    cmsis-pack   a pack for Keil, CubeMX, CMSIS-Toolbox
    stm32        folders for an STM32Cube project
    tflm         only the model, for TensorFlow Lite Micro

    --board chooses the kernel: mps2-an386 for any Cortex-M4, M7 or M33 with DSP instructions,
    mps3-an547 for any Cortex-M55 or M85, none for every other processor.

    Exit code 0: written, 2: bad input, or a bundle that the core cannot run.
    """
    from firmware_harness.emission import emit as write
    from firmware_harness.emission import emit_tflm
    from firmware_harness.packing import packed

    found = packed(bundle, board, allow_failed)
    if target == TFLM:
        click.echo(emit_tflm(found, out, force))
    else:
        write(found, ecosystems.ALL[target], out, board, force)
    click.echo(f"written: {out}")
    if target != TFLM:
        click.echo(f"next: {out / 'README.md'}")


@cli.command()
@click.argument("bundle", type=PATH)
@board_option(required=True)
@click.option("--out", type=PATH, help=f"Folder of the build.  [default: {BUILDS}/NAME-BOARD]")
@click.option("--release", is_flag=True, help="Without the fault injection of test builds.")
@allow_failed_option
def build(bundle: Path, board: Board, out: Path | None, release: bool, allow_failed: bool) -> None:
    """Compile BUNDLE into a firmware for a board: OUT/firmware.elf.

    Boards without a watchdog have only OUT/replay.elf, which `run` and `compare` use.

    Exit code 0: built, 2: bad input, or a tool is missing.
    """
    from firmware_harness.building import build as compile_firmware
    from firmware_harness.building import sizes
    from firmware_harness.packing import packed

    found = packed(bundle, board, allow_failed)
    folder = out or BUILDS / f"{found.bundle.manifest.name}-{board.name}"
    built = compile_firmware(found, board, folder, release)
    size = sizes(built)
    click.echo(
        f"built: {built.image} ({size.flash} bytes of flash, {len(found.blob)} of them the "
        f"bundle; {size.memory} bytes of memory without the detectors')"
    )


@cli.command()
@click.argument("bundle", type=PATH)
@click.argument("data", type=PATH)
@board_option(required=True)
@click.option(
    "--transport", type=click.Choice(["semihosting", "uart"]), default="semihosting",
    show_default=True, help="semihosting is fast, uart is as on a real board.",
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
    """Answer every row of DATA with a record, by BUNDLE on an emulated board.

    The output is that of gruard replay, byte for byte. The host sets the flag RECURRING, because
    the board has no time of day.

    Exit code 0: every row was answered, 2: bad input, a tool is missing, or the board hangs.
    """
    from edge_runtime.files import output, refuse_to_overwrite
    from edge_runtime.record import CSV_COLUMNS, csv_cells
    from edge_runtime.recurring_alarms import RecurringAlarms
    from firmware_harness import semihosting, uart
    from firmware_harness.core_records import to_records
    from firmware_harness.packing import packed
    from firmware_harness.recording import read_recording

    refuse_to_overwrite(out, force)
    found = packed(bundle, board, allow_failed)
    recording = read_recording(data, found.bundle.manifest)
    threshold = (found.threshold.value, found.threshold.clear)
    with _built(found, board) as built:
        began = perf_counter()
        if transport == "uart":
            with uart.running(built) as (line, status):
                uart.refuse_without_model(status)
                records = uart.replay(line, recording.rows)
        else:
            records = semihosting.replay(built, recording.rows, threshold).records
        took = perf_counter() - began
    answers = to_records(records, found, recording.times)
    marked = map(RecurringAlarms(found.bundle.manifest.period).mark, answers)
    with output(out, force) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        writer.writerows(map(csv_cells, marked))
    facts = {"board": board.name, "steps": len(records), "per_second": round(len(records) / took)}
    summary = f"{len(records)} steps on {board.name}, {facts['per_second']} a second"
    click.echo(json.dumps(facts) if as_json else summary, err=True)


@cli.command()
@click.argument("bundle", type=PATH)
@click.argument("data", type=PATH, required=False)
@click.option(
    "--steps", type=click.IntRange(1, 10**9), default=100_000, show_default=True,
    help="Length of the recording with a fault every 1,000 rows.",
)  # fmt: skip
@click.option("--run", type=PATH, help="Run folder of the float graph.  [default: two folders up]")
@boards_option
@allow_failed_option
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def compare(
    bundle: Path,
    data: Path | None,
    steps: int,
    run: Path | None,
    boards: list[Board],
    allow_failed: bool,
    as_json: bool,
) -> None:
    """Compare all engines that can run BUNDLE, step by step, on the recording DATA with faults.

    The engines: the float graph (if the run folder exists), the int8 file in TFLite, the C core on
    this machine and on each board. They run the golden vectors first, then DATA, or the golden rows
    again. All but the float graph must give the same bits.

    Exit code 0: nothing differs, 1: something differs, 2: bad input, or a tool is missing.
    """
    from firmware_harness import answers, comparing
    from firmware_harness.packing import packed, packed_for
    from firmware_harness.recording import read_recording, spoilt

    found = packed(bundle, None, allow_failed)
    golden_rows, golden_threshold, golden = answers.golden(found)
    manifest = found.bundle.manifest
    rows = read_recording(data, manifest).rows if data else golden_rows
    reference, float_graph = answers.reference(found), answers.float_graph(found, run)
    with ExitStack() as stack:
        packs = [(packed_for(board, found.bundle), board) for board in boards]
        builds = [stack.enter_context(_built(*pack)) for pack in packs]
        ways = {
            **({comparing.FLOAT: float_graph} if float_graph else {}),
            "core here": answers.host_core(found),
            **{f"core on {built.board.processor}": answers.board(built) for built in builds},
        }
        _say("the golden vectors")
        by_golden = {"int8 TFLite": reference, **ways}
        given = {way: run(golden_rows, golden_threshold) for way, run in by_golden.items()}
        tables = [comparing.compare("golden vectors", golden, given)]
        long, threshold = spoilt(rows, steps, manifest), found.threshold
        wanted = _asked("int8 TFLite", reference, long, threshold)
        given = {way: _asked(way, run, long, threshold) for way, run in ways.items()}
        tables.append(comparing.compare("recording with faults", wanted, given))
    passed = all(table.passed for table in tables)
    if as_json:
        facts = [table.to_dict() for table in tables]
        click.echo(json.dumps({"passed": passed, "comparisons": facts}))
    else:
        click.echo("\n\n".join(map(comparing.text, tables)))
        click.echo("\nequal" if passed else "\nDIFFERENT")
    sys.exit(0 if passed else 1)


@cli.command()
@click.argument("bundle", type=PATH)
@click.argument("data", type=PATH)
@boards_option
@allow_failed_option
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def watchdog(
    bundle: Path, data: Path, boards: list[Board], allow_failed: bool, as_json: bool
) -> None:
    """Inject faults into emulated boards with BUNDLE while they watch the healthy recording DATA.

    An endless loop, an endless sleep, a HardFault, a stack overflow, a flipped bit in the weights
    and in the state, a skipped step; then more resets than allowed. After each fault every sample
    must have its record, marked until the model has proven itself.

    Exit code 0: every board recovered as required, 1: one did not, 2: bad input, or a tool is
    missing.
    """
    from firmware_harness import injuring
    from firmware_harness.building import refuse_without_firmware
    from firmware_harness.packing import packed, packed_for
    from firmware_harness.protocol import Injection
    from firmware_harness.recording import read_recording

    for board in boards:
        refuse_without_firmware(board)
    found = packed(bundle, None, allow_failed)
    rows = read_recording(data, found.bundle.manifest).rows
    injuries: list[injuring.Injury] = []
    resorts: list[injuring.LastResort] = []
    for board in boards:
        with _built(packed_for(board, found.bundle), board) as built:
            for injection in Injection:
                injuries.append(injuring.injure(built, rows, injection))
                if not as_json:
                    click.echo(injuring.injury_text(injuries[-1]))
            resorts.append(injuring.exhaust(built, rows))
            if not as_json:
                click.echo(injuring.resort_text(resorts[-1]))
    passed = not any([*(one.faults for one in injuries), *(one.faults for one in resorts)])
    if as_json:
        results = {"injuries": [*map(asdict, injuries)], "last_resorts": [*map(asdict, resorts)]}
        click.echo(json.dumps({"passed": passed, **results}))
    else:
        click.echo("passed" if passed else "FAILED")
    sys.exit(0 if passed else 1)


@cli.command()
@click.argument("bundle", type=PATH)
@click.argument("data", type=PATH)
@boards_option
@click.option(
    "--flips", "count", type=click.IntRange(4, 10**6), default=2000, show_default=True,
    help="Total number; about three per second and board.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=ranges.SEED, help="Random seed.")
@allow_failed_option
@click.option("--json", "as_json", is_flag=True, help="Print every flip as JSON.")
def faults(
    bundle: Path,
    data: Path,
    boards: list[Board],
    count: int,
    seed: int,
    allow_failed: bool,
    as_json: bool,
) -> None:
    """Flip single bits of emulated boards with BUNDLE, in weights, state, code and stack.

    The boards watch DATA, a recording with alarms. Half of the flips come during a step, half at a
    random moment. From there on every record is compared with the expected one: the flip is
    noticed, harmless or silent, or the board stops answering.

    Exit code 0: every board kept answering, and no unmarked record had a wrong alarm, 1: otherwise,
    2: bad input, or a tool is missing.
    """
    from edge_runtime.bundle.reader import read_bundle
    from firmware_harness import flip_campaign, flip_results
    from firmware_harness.building import refuse_without_firmware
    from firmware_harness.recording import read_recording

    for board in boards:
        refuse_without_firmware(board)
    loaded = read_bundle(bundle, allow_failed)
    rows = read_recording(data, loaded.manifest).rows
    found = flip_campaign.on_boards(boards, loaded, rows, count, seed, _say)
    passed = flip_results.passed(found)
    if as_json:
        click.echo(json.dumps({"passed": passed, "flips": [asdict(flip) for flip in found]}))
    else:
        last = "passed" if passed else "FAILED"
        click.echo("\n".join([flip_results.table(found), "", *flip_results.unnoticed(found), last]))
    sys.exit(0 if passed else 1)


@cli.command()
@click.argument("bundle", type=PATH)
@allow_failed_option
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def cost(bundle: Path, allow_failed: bool, as_json: bool) -> None:
    """Count the instructions of a step of BUNDLE, by kernel, part and operator, and its memory.

    QEMU counts them over the bundle's own golden recording; the counts repeat exactly. They are not
    cycles: QEMU does not emulate the wait states of flash and memory.

    Example: python -m firmware_harness cost pump-1.gruard
    """
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.detector.golden import ROWS
    from firmware_harness.cost import SUBJECTS, cost_text, macs, measure

    loaded = read_bundle(bundle, allow_failed)
    rows = loaded.arrays("golden.npz")[ROWS]
    found = {}
    for subject in SUBJECTS:
        _say(subject.name)
        found[subject.name] = measure(loaded, subject, rows)
    if as_json:
        counts = {name: asdict(each) for name, each in found.items()}
        click.echo(json.dumps({"macs": macs(loaded), "kernels": counts}))
    else:
        click.echo(cost_text(found, macs(loaded)))


def _asked(way: str, run: "Engine", rows: "Float32", threshold: "Threshold") -> "Answers":
    _say(f"{len(rows):,} steps: {way}")
    return run(rows, (threshold.value, threshold.clear))


def _say(sentence: str) -> None:
    click.echo(f"… {sentence}", err=True)


@contextmanager
def _built(found: "Packed", board: Board) -> "Iterator[Built]":
    """Yield a build in a temporary folder."""
    from firmware_harness.building import build as compile_firmware

    with tempfile.TemporaryDirectory(prefix="gruard-") as folder:
        yield compile_firmware(found, board, Path(folder) / "build")


def main() -> NoReturn:
    """Run the command line."""
    run_command(cli, "firmware_harness", "interrupted; nothing was written")


if __name__ == "__main__":
    main()
