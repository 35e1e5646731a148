"""The outcomes of single flipped bits on the emulated boards, into docs/firmware.md.

python -m benchmarks.board_flips BUNDLE DATA [--flips 2000] [--out docs/firmware.md]
                                                                      (make firmware-faults)
"""

import sys
from pathlib import Path

import click

from benchmarks.pages import fill_page, page_option
from edge_runtime.bundle.reader import read_bundle
from firmware_harness import flip_campaign, flip_results
from firmware_harness.boards import USUAL
from firmware_harness.recording import read_recording


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--flips", "count", default=2000, show_default=True, type=click.IntRange(8))
@page_option("flips")
def main(bundle: Path, data: Path, count: int, out: Path | None) -> None:
    """Flip bits on both boards with BUNDLE while they watch DATA, a recording with alarms."""
    loaded = read_bundle(bundle, allow_failed=True)
    rows = read_recording(data, loaded.manifest).rows

    def say(progress: str) -> None:
        click.echo(progress, err=True)

    found = flip_campaign.on_boards(USUAL, loaded, rows, count, 0, say)
    table = flip_results.table(found)
    click.echo("\n".join([table, "", *flip_results.unnoticed(found)]))
    if out:
        fill_page(out, table, "flips")
    sys.exit(not flip_results.passed(found))


if __name__ == "__main__":
    main()
