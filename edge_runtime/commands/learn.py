"""`gruard learn`: make a bundle from recordings of a healthy machine, on this machine."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.commands.options import (
    column_options,
    exclude_option,
    false_alarms_option,
)
from edge_runtime.errors import GruardError

if TYPE_CHECKING:
    from edge_runtime.learning.learn import Learned

FILE = click.Path(path_type=Path)
BUNDLE_NAME = re.compile(r"(?P<name>.+)-(?P<version>[1-9]\d{0,8})\.gruard")


@click.command()
@click.argument("data", nargs=-1, required=True, type=FILE)
@click.option(
    "--out",
    required=True,
    type=FILE,
    metavar="NAME-VERSION.gruard",
    help="Bundle to write, e.g. pump-1.gruard; devices refuse an older version.",
)
@false_alarms_option
@exclude_option
@click.option(
    "--settings",
    type=FILE,
    help="Units, limits and roles of channels, TOML or YAML.  [default: channels.toml or .yaml "
    "next to the data]",
)
@column_options
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def learn(
    data: tuple[Path, ...],
    out: Path,
    wish: float,
    exclude: tuple[str, ...],
    settings: Path | None,
    force: bool,
    as_json: bool,
    **columns: Any,
) -> None:
    """Learn how a healthy machine behaves, and write a bundle for gruard run.

    DATA are CSV files (also .csv.gz) or Parquet files, or folders of them, of the machine behaving
    normally: at least 150 rows; with about 1,000 rows or more the bundle is no longer marked as a
    trial. A header row is needed. Delimiter, decimal comma, encoding and the time column are
    detected; every other column of numbers that change is a channel. Left out are rows labelled 1,
    and stretches unlike the rest that are not labelled 0. gruard look says first whether the
    recording is fit to learn from.

    The detector is linear and is learned here, in seconds, without TensorFlow. A network, which
    finds more on some machines, is trained on a workstation (python -m train fit).

    \b
    Exit code 0: written. 1: this machine computes wrong steps, nothing was written. 2: bad input.
    Example: gruard learn healthy.csv --out pump-1.gruard
             gruard run pump-1.gruard --source stdin
    """
    name, version = _named(out)
    from edge_runtime.learning.bundle_writer import refuse_existing, refuse_unwritable
    from edge_runtime.learning.request import Request, read_data

    refuse_existing(out, force)
    refuse_unwritable(out)
    read = read_data(Request(data, exclude=exclude, settings=settings, **columns))
    from edge_runtime.learning.learn import learn as learned_from
    from edge_runtime.learning.learn import linear_run, write_learned

    learned = learned_from(linear_run(read, name, _SEED, _say), version, wish, _say)
    written = write_learned(learned, out.parent, force) if learned.passed else None
    if as_json:
        click.echo(json.dumps({**learned.facts(), "bundle": str(written or "")}))
    else:
        click.echo(_text(learned))
        click.echo(f"written: {written}" if written else _FAILED)
    sys.exit(0 if written else 1)


_SEED = 0  # of the injected faults
_FAILED = (
    "FAILED: the steps differ from the formula; nothing was written. Check the memory of this "
    "machine, or learn on another one"
)


def _named(out: Path) -> tuple[str, int]:
    found = BUNDLE_NAME.fullmatch(out.name)
    if found is None:
        raise GruardError(
            f"--out {out}: name the bundle NAME-VERSION.gruard, with a version from 1 on, "
            "e.g. pump-1.gruard"
        )
    return found["name"], int(found["version"])


def _say(sentence: str) -> None:
    click.echo(f"… {sentence}", err=True)


def _text(learned: Learned) -> str:
    from edge_runtime.calibration import trial_of
    from edge_runtime.learning.check import checks_text

    manifest = learned.manifest
    (threshold,) = manifest.thresholds.values()
    lines = [checks_text(learned.checks)]
    lines += [f"warning: {warning}" for warning in learned.warnings]
    if learned.judgement is not None:
        lines.append(learned.judgement.sentence())
    return "\n".join([*lines, threshold.statement, *filter(None, [trial_of(manifest)])])
