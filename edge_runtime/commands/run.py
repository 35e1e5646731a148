"""`gruard run`: watch one source with one bundle."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from edge_runtime.commands.options import (
    kernel_chain,
    kernel_option,
    state_option,
    trusted_key_option,
    watchdog_option,
    watchdog_timeout_option,
)

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from edge_runtime.bundle.manifest import Manifest
    from edge_runtime.bundle.reader import Bundle
    from edge_runtime.detector.delegate import Kernel
    from edge_runtime.sinks.sink import Sink
    from edge_runtime.sources.complaints import Complaints
    from edge_runtime.sources.source import Source
    from edge_runtime.supervision.injection import Injections
    from edge_runtime.supervision.keeping import Keeping
    from edge_runtime.supervision.summary import Console
    from edge_runtime.supervision.supervisor import Settings, Supervisor

_LOST_RECORDS = 1
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--source", required=True, metavar="FILE|-", help="CSV or JSON lines: a file, or - for stdin."
)
@click.option(
    "--sink",
    "sinks",
    default=("-",),
    multiple=True,
    metavar="FILE.jsonl|-",
    help="JSON lines: a file, or - for stdout (default); may be repeated.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="HZ",
    help="Play the source at so many samples per second; default: as they come.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds the model may take for a sample; default: one period, within 0.05 and 1.",
)
@click.option(
    "--inject",
    default="",
    metavar="FAULTS",
    help="Break things on purpose: hang@1200, crash@2400, nan:CHANNEL@300+50, "
    "stuck:CHANNEL@300+50, level:CHANNEL@300+50*AMOUNT; several with commas.",
)
@click.option("--force", is_flag=True, help="Overwrite sink files.")
@state_option
@watchdog_option
@watchdog_timeout_option
@click.option("--allow-failed", is_flag=True, help="Run a bundle whose validation failed.")
@kernel_option
@trusted_key_option
@click.option("--json", "as_json", is_flag=True, help="Summary as one JSON line on stderr.")
def run(
    bundle: Path,
    source: str,
    sinks: tuple[str, ...],
    rate: float | None,
    deadline: float | None,
    inject: str,
    force: bool,
    state: Path | None,
    watchdog: Path | None,
    watchdog_timeout: int,
    allow_failed: bool,
    kernel: Kernel | None,
    trusted_keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Answer every sample of a source with one JSON record.

    The model runs in a process of its own; if it hangs or crashes, a statistical fallback answers
    and says so (tier 3, flag FALLBACK) until the model is back. The summary goes to stderr.
    Exit code: 0, 1 if records could not be written, 2 for a problem you can mend, 130 after Ctrl-C.

    \b
    A recording, with a crash to see what happens:
      gruard run pump-1.gruard --source day.csv --sink day.jsonl --rate 50 --inject crash@500
    A live stream:
      read-sensors | gruard run pump-1.gruard --source - | grep '"alarm":true'
    """
    import os

    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.sinks.open_sink import open_sinks
    from edge_runtime.sources.complaints import Complaints
    from edge_runtime.sources.open_source import open_source
    from edge_runtime.supervision.injection import parse_injections
    from edge_runtime.supervision.keeping import Keeping, default_state
    from edge_runtime.supervision.summary import Console
    from edge_runtime.supervision.worker_process import worker_command

    loaded = read_bundle(bundle, allow_failed, trusted_keys)
    channels = loaded.manifest.channel_names
    injections = parse_injections(inject, channels)
    settings = _settings(loaded.manifest, rate, deadline)
    chain = kernel_chain(kernel)
    commands = [worker_command(bundle, allow_failed, each, trusted_keys) for each in chain]
    console = Console(sys.stderr, time.monotonic)
    keeping = Keeping(state or default_state(os.environ), watchdog, watchdog_timeout)
    keeping.check(os.environ, settings.interval or settings.period)
    complaints = Complaints(console.log)
    with ExitStack() as undo:
        readings = open_source(source, channels, loaded.manifest.period, complaints)
        undo.callback(readings.close)
        # What waits for nobody must not wait for a sink either.
        records = open_sinks(sinks, force, console.log if readings.live else None)
        undo.pop_all()  # from here on both are the supervisor's
    supervisor = _supervisor(
        loaded, commands, readings, complaints, records, injections, settings, console, keeping
    )
    sys.exit(_run(supervisor, as_json))


def _settings(manifest: Manifest, rate: float | None, deadline: float | None) -> Settings:
    from edge_runtime.supervision.supervisor import Settings, answer_deadline

    interval = 1 / rate if rate else None
    patience = answer_deadline(interval or manifest.period) if deadline is None else deadline
    return Settings(len(manifest.channel_names), manifest.period, patience, interval)


def _supervisor(
    bundle: Bundle,
    commands: Sequence[tuple[str, ...]],
    source: Source,
    complaints: Complaints,
    sink: Sink,
    injections: Injections,
    settings: Settings,
    console: Console,
    keeping: Keeping,
) -> Supervisor:
    import os

    from edge_runtime.detector.fallback import Fallback
    from edge_runtime.supervision.supervisor import Supervisor, Surroundings
    from edge_runtime.supervision.worker_process import WorkerProcess

    clock = time.monotonic
    listener, started_after = keeping.begin(os.environ, clock, console.log)
    supervisor = Supervisor(
        source,
        complaints,
        sink,
        WorkerProcess(*commands, clock=clock),
        Fallback(bundle.manifest, bundle.model_hash),
        injections,
        settings,
        Surroundings(clock, time.sleep, console, listener),
    )
    supervisor.summary.started_after = started_after
    return supervisor


def _run(supervisor: Supervisor, as_json: bool) -> int:
    """Run to the end or to a signal, tell the summary, and return the exit code."""
    import signal

    signal.signal(signal.SIGTERM, _terminate)
    try:
        supervisor.run()
        stopped = 0
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    except _Terminated:
        stopped = 0  # a service manager's stop is an end in good order
    finally:
        supervisor.tell(as_json)
    supervisor.ended()
    return stopped or (_LOST_RECORDS if supervisor.summary.dropped else 0)


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated
