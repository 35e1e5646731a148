"""`gruard status` and `gruard top`: what a run is doing, once or live."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click

from edge_runtime.errors import GruardError


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print all there is as one JSON object.")
def status(file: Path | None, as_json: bool) -> None:
    """Say how a run is that was started with --status FILE.

    Without FILE that of the service: $RUNTIME_DIRECTORY/status.json, or the one below /run/gruard.

    \b
    Exit code
      0  healthy: a model vouches for the last sample, and there is no alarm
      1  an alarm is on
      2  FILE cannot be read, or is no status file
      3  no healthy model behind the last sample, or no living run: there is no file, its process
         has ended, was killed, is stopped, or answers nothing any more. The first line says which
    Example: gruard status /run/gruard/status.json || notify-send "look at the pump"
    """
    from edge_runtime.status.cells import printable
    from edge_runtime.status.status_file import read_status
    from edge_runtime.status.text import to_text
    from edge_runtime.status.verdict import judge_now

    snapshot = read_status(_place(file))
    verdict = judge_now(snapshot, time.monotonic())
    if as_json:
        click.echo(json.dumps(vars(verdict) | {"snapshot": snapshot}, default=vars))
    else:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        click.echo("\n".join(map(printable, to_text(snapshot, verdict))))
    sys.exit(verdict.code)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def top(file: Path | None) -> None:
    """Watch a run live that was started with --status FILE; renewed each second, q quits.

    The curve is the score's share of its threshold (limit), the highest of each second. FILE as
    for gruard status. It may begin, end and begin again while you watch.
    """
    from edge_runtime.status.screen import screen
    from edge_runtime.status.status_file import read_status
    from edge_runtime.status.terminal import borrowed, size
    from edge_runtime.status.verdict import judge_now

    path = _place(file)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise GruardError("top draws on a terminal, and this is none; take gruard status")
    read_status(path)  # a file of something else is refused before the screen is cleared
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    with borrowed(coloured="NO_COLOR" not in os.environ) as terminal:
        leaving = False
        while not leaving:
            snapshot = read_status(path)
            verdict = judge_now(snapshot, time.monotonic())
            terminal.draw(screen(snapshot, verdict, str(path), *size()))
            leaving = terminal.wait(1.0)


def _place(file: Path | None) -> Path:
    from edge_runtime.status.status_file import place_of_service, service_file

    return file or service_file(os.environ) or place_of_service()
