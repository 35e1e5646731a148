"""`gruard run`: watch one source with one bundle, or with the one that the store names."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from edge_runtime.commands.options import (
    kernel_chain,
    kernel_option,
    state_option,
    store_option,
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
    from edge_runtime.status.watch import Watch
    from edge_runtime.supervision.injection import Injections
    from edge_runtime.supervision.keeping import Keeping
    from edge_runtime.supervision.summary import Console
    from edge_runtime.supervision.supervisor import Settings, Supervisor
    from edge_runtime.supervision.worker_process import WorkerProcess
    from edge_runtime.updates.switch import ModelSwitch

_LOST_RECORDS = 1
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@store_option
@click.option(
    "--source",
    required=True,
    metavar="FILE|-|KIND:PLACE",
    help="CSV or JSON lines: a file, or - for stdin; or serial:, mqtt:, mqtts:, iio:, modbus:, "
    "python:, as docs/sources.md has them.",
)
@click.option(
    "--sink",
    "sinks",
    default=("-",),
    multiple=True,
    metavar="FILE.jsonl|-|mqtt://HOST/TOPIC",
    help="JSON lines: a file, or - for stdout (default); or a broker; may be repeated.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep all records here too, and send those a network could not take when it is back.",
)
@click.option(
    "--journal-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="MB",
    help="Drop the oldest records of the journal beyond this.",
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
@click.option(
    "--healthy-minutes",
    type=click.FloatRange(min=0),
    default=10.0,
    metavar="N",
    help="Healthy minutes after which a bundle on trial is kept.  [default: 10]",
)
@click.option(
    "--status",
    "status_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the state of the run in FILE, for gruard status and gruard top; best in /run.  "
    "[default: $RUNTIME_DIRECTORY/status.json where systemd gives one]",
)
@click.option(
    "--metrics",
    metavar="[ADDRESS:]PORT",
    help="Serve metrics for Prometheus over HTTP; to this machine alone without ADDRESS.",
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
    bundle: Path | None,
    store: Path,
    source: str,
    sinks: tuple[str, ...],
    journal: Path | None,
    journal_size: int,
    rate: float | None,
    deadline: float | None,
    inject: str,
    healthy_minutes: float,
    status_file: Path | None,
    metrics: str | None,
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

    Without BUNDLE the one that gruard install put into the store answers. Another one that is
    installed meanwhile takes over between two samples, on trial.

    The model runs in a process of its own; if it hangs or crashes, a statistical fallback answers
    and says so (tier 3, flag FALLBACK) until the model is back. The summary goes to stderr.
    Exit code: 0, 1 if records could not be written, 2 for a problem you can mend, 130 after Ctrl-C.

    \b
    A recording, with a crash to see what happens:
      gruard run pump-1.gruard --source day.csv --sink day.jsonl --rate 50 --inject crash@500
    A live stream:
      read-sensors | gruard run pump-1.gruard --source - | grep '"alarm":true'
    The same with updates while it runs:
      read-sensors | gruard run --store /var/lib/gruard --source - >> records.jsonl
    """
    import os

    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.sinks.open_sink import JournalPlace, open_sinks
    from edge_runtime.sources.complaints import Complaints
    from edge_runtime.sources.open_source import open_source
    from edge_runtime.supervision.injection import parse_injections
    from edge_runtime.supervision.keeping import Keeping, default_state
    from edge_runtime.supervision.summary import Console
    from edge_runtime.supervision.worker_process import WorkerProcess, worker_command

    clock = time.monotonic
    console = Console(sys.stderr, clock)
    read = partial(read_bundle, allow_failed=allow_failed, trusted_keys=trusted_keys)

    def process_of(loaded: Bundle) -> WorkerProcess:
        chain = kernel_chain(kernel)
        words = [worker_command(loaded.path, allow_failed, each, trusted_keys) for each in chain]
        return WorkerProcess(*words, clock=clock)

    if bundle and _named("store"):
        raise click.UsageError("name a BUNDLE or a --store, not both")
    loaded = read(bundle) if bundle else _chosen(store, read, console)
    channels = loaded.manifest.channel_names
    injections = parse_injections(inject, channels)
    settings = _settings(loaded.manifest, rate, deadline)
    keeping = Keeping(state or default_state(os.environ), watchdog, watchdog_timeout)
    keeping.check(os.environ, settings.interval or settings.period)
    complaints = Complaints(console.log)
    watch = _watch(loaded, settings, status_file, metrics, console)
    with ExitStack() as undo:
        readings = open_source(source, channels, loaded.manifest.period, complaints)
        undo.callback(readings.close)
        place = None if journal is None else JournalPlace(journal, journal_size * 1_000_000)
        records = open_sinks(sinks, force, console.log, readings.live, place)
        undo.pop_all()  # from here on both are the supervisor's
    switch = None
    if bundle is None:
        healthy = 60 * healthy_minutes
        switch = _switch(store, loaded, read, process_of, settings, healthy, console)
    process = process_of(loaded)
    supervisor = _supervisor(
        loaded,
        process,
        readings,
        complaints,
        records,
        injections,
        settings,
        console,
        keeping,
        watch,
        switch,
    )
    code = _run(supervisor, watch, as_json)
    if switch:
        switch.spare()
    sys.exit(code)


def _named(option: str) -> bool:
    """Whether an option was given in so many words, not by the environment."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _chosen(store: Path, read: Callable[[Path], Bundle], console: Console) -> Bundle:
    from edge_runtime.updates.choice import choose
    from edge_runtime.updates.store import Store

    return choose(Store(store), read, console.log)


def _switch(
    store: Path,
    loaded: Bundle,
    read: Callable[[Path], Bundle],
    process_of: Callable[[Bundle], WorkerProcess],
    settings: Settings,
    healthy: float,
    console: Console,
) -> ModelSwitch:
    """What puts another bundle of the store in the place of `loaded`."""
    from edge_runtime.detector.fallback import Fallback
    from edge_runtime.supervision.exchange import Serving
    from edge_runtime.supervision.worker_care import WorkerCare
    from edge_runtime.updates.store import Store
    from edge_runtime.updates.switch import ModelSwitch, Workshop

    clock = time.monotonic

    def serve(bundle: Bundle, may_start: Callable[[], bool]) -> Serving:
        process = process_of(bundle)
        model = WorkerCare(process, settings.deadline, clock, console.log, may_start)
        return Serving(model, Fallback(bundle.manifest, bundle.model_hash))

    return ModelSwitch(Store(store), loaded, Workshop(read, serve), healthy, clock, console.log)


def _settings(manifest: Manifest, rate: float | None, deadline: float | None) -> Settings:
    from edge_runtime.supervision.supervisor import Settings, answer_deadline

    interval = 1 / rate if rate else None
    patience = answer_deadline(interval or manifest.period) if deadline is None else deadline
    return Settings(len(manifest.channel_names), manifest.period, patience, interval)


def _watch(
    bundle: Bundle,
    settings: Settings,
    status_file: Path | None,
    metrics: str | None,
    console: Console,
) -> Watch:
    import os

    from edge_runtime.status.status_file import StatusFile, service_file
    from edge_runtime.status.watch import Outlet, Watch

    outlets: list[Outlet] = []
    if file := status_file or service_file(os.environ):
        outlets.append(StatusFile(file, console.log))
    if metrics is not None:
        from edge_runtime.status.metrics_server import MetricsServer

        outlets.append(MetricsServer(metrics, console.log))
    manifest = bundle.manifest
    slowest = max(settings.interval or manifest.period or 0.0, settings.deadline)
    return Watch(
        manifest.name,
        manifest.version,
        bundle.model_hash,
        manifest.channel_names,
        slowest,
        outlets,
        console.log,
    )


def _supervisor(
    bundle: Bundle,
    process: WorkerProcess,
    source: Source,
    complaints: Complaints,
    sink: Sink,
    injections: Injections,
    settings: Settings,
    console: Console,
    keeping: Keeping,
    watch: Watch,
    switch: ModelSwitch | None,
) -> Supervisor:
    import os

    from edge_runtime.detector.fallback import Fallback
    from edge_runtime.supervision.supervisor import Supervisor, Surroundings

    clock = time.monotonic
    listener, started_after = keeping.begin(os.environ, clock, console.log)
    supervisor = Supervisor(
        source,
        complaints,
        sink,
        process,
        Fallback(bundle.manifest, bundle.model_hash),
        injections,
        settings,
        Surroundings(clock, time.sleep, console, listener, watch.observe),
        switch,
    )
    supervisor.summary.started_after = started_after
    return supervisor


def _run(supervisor: Supervisor, watch: Watch, as_json: bool) -> int:
    """Run to the end or to a signal, tell the summary, and return the exit code."""
    import signal

    signal.signal(signal.SIGTERM, _terminate)
    try:
        with watch:
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
