"""From the options of `gruard run` to its parts, put together and not yet started."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.commands.options import kernel_chain
from edge_runtime.detector.delegate import Kernel
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.kernels import CORE_KERNEL_ID
from edge_runtime.errors import GruardError
from edge_runtime.native.fallback import NativeFallback
from edge_runtime.sinks.json_lines import Existing
from edge_runtime.sinks.open_sink import JournalPlace, open_sinks
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.open_source import open_source
from edge_runtime.status.board import Board
from edge_runtime.status.status_file import StatusFile, service_file
from edge_runtime.status.watch import Outlet, Watch
from edge_runtime.supervision.answer_check import BundleIdentity
from edge_runtime.supervision.exchange import Serving, ShadowDetector
from edge_runtime.supervision.injection import parse_injections
from edge_runtime.supervision.keeping import Keeping, default_state
from edge_runtime.supervision.start_delay import StartDelay
from edge_runtime.supervision.summary import Console
from edge_runtime.supervision.supervisor import (
    Settings,
    Supervisor,
    Surroundings,
    answer_deadline,
)
from edge_runtime.supervision.worker_care import WorkerCare
from edge_runtime.supervision.worker_process import WorkerProcess, worker_command
from edge_runtime.threads import Threads
from edge_runtime.updates.choice import choose
from edge_runtime.updates.store import Store
from edge_runtime.updates.switch import ModelSwitch, Workshop

CLOCK = time.monotonic


@dataclass(frozen=True)
class RunOptions:
    """What the user asked for, as `gruard run --help` explains it. bundle: None is the store's."""

    bundle: Path | None
    store: Path
    source: str
    sinks: tuple[str, ...]
    journal: Path | None
    journal_size: int
    rate: float | None
    deadline: float | None
    inject: str
    healthy_minutes: float
    status_file: Path | None
    metrics: str | None
    force: bool
    append: bool
    state: Path | None
    watchdog: Path | None
    watchdog_timeout: int
    allow_failed: bool
    kernel: Kernel | None
    trusted_keys: tuple[Path, ...]
    debug: bool

    @property
    def existing(self) -> Existing:
        """What becomes of sink files that are there already."""
        if self.force:
            return Existing.OVERWRITTEN
        return Existing.CONTINUED if self.append else Existing.REFUSED

    def read(self, path: Path) -> Bundle:
        """The bundle at `path`, if it may be run."""
        return read_bundle(path, self.allow_failed, self.trusted_keys)

    def fallback(self, bundle: Bundle, log: Callable[[str], None]) -> ShadowDetector:
        """The fallback for `bundle`; by the C core where that runs the model, too.

        log: takes a line when its memory had to be repaired.
        Where it can't, the worker will say so: the fallback is there for such days.
        """
        if self.kernel == CORE_KERNEL_ID:
            with suppress(GruardError):
                return NativeFallback(bundle, log)
        return Fallback(bundle.manifest, bundle.model_hash, log)

    def process(self, bundle: Bundle) -> WorkerProcess:
        """The inference process for `bundle`, not yet started."""
        word = partial(worker_command, bundle.path, self.allow_failed)
        kernels = kernel_chain(self.kernel)
        commands = [word(kernel, self.trusted_keys, self.debug) for kernel in kernels]
        identity = BundleIdentity.of(bundle)
        return WorkerProcess(*commands, identity=identity, clock=CLOCK, debug=self.debug)


@dataclass(frozen=True)
class Assembled:
    """A run that is ready to start. switch: None where no other bundle can take over.

    delay: what later starts of the service owe.
    """

    supervisor: Supervisor
    watch: Watch
    switch: ModelSwitch | None
    delay: StartDelay


def assemble(options: RunOptions) -> Assembled:
    """Everything that the run needs, opened. Raises GruardError when something cannot be had.

    A service whose last starts did not last waits first.
    """
    console = Console(sys.stderr, CLOCK)
    keeping = Keeping(
        options.state or default_state(os.environ), options.watchdog, options.watchdog_timeout
    )
    with keeping.delay(os.environ, CLOCK, time.sleep, console.log) as delay:
        return _assemble(options, console, keeping, delay)


def _assemble(
    options: RunOptions, console: Console, keeping: Keeping, delay: StartDelay
) -> Assembled:
    store = Store(options.store)
    if options.bundle:
        bundle = options.read(options.bundle)
    else:
        bundle = choose(store, options.read, console.log)
    manifest = bundle.manifest
    injections = parse_injections(options.inject, manifest.channel_names)
    settings = _settings(bundle, options)
    keeping.check(os.environ, settings.interval or settings.period)
    complaints = Complaints(console.log)
    threads = Threads(console.log, CLOCK)
    watch = _watch(bundle, settings, options, console, threads)
    with ExitStack() as undo:
        source = open_source(options.source, manifest.channel_names, manifest.period, complaints)
        undo.callback(source.close)
        sink = open_sinks(
            options.sinks, options.existing, console.log, source.live, _journal(options)
        )
        undo.pop_all()  # from here on both are the supervisor's
    threads.watch((*getattr(source, "threads", ()), *sink.threads))
    switch = (
        None if options.bundle else _switch(store, bundle, settings, options, source.live, console)
    )
    listener, started_after = keeping.begin(os.environ, CLOCK, console.log, delay)
    supervisor = Supervisor(
        source,
        complaints,
        sink,
        options.process(bundle),
        options.fallback(bundle, console.log),
        injections,
        settings,
        Surroundings(CLOCK, time.sleep, console, listener, watch.observe, watch.turn),
        switch,
    )
    supervisor.summary.started_after = started_after
    supervisor.summary.skipped = lambda: sink.skipped
    supervisor.summary.threads = threads.states
    return Assembled(supervisor, watch, switch, delay)


def _settings(bundle: Bundle, options: RunOptions) -> Settings:
    period = bundle.manifest.period
    interval = 1 / options.rate if options.rate else None
    patience = options.deadline or answer_deadline(interval or period)
    channels, warmup = len(bundle.manifest.channel_names), bundle.manifest.tiers.warmup
    return Settings(channels, warmup, period, patience, interval)


def _journal(options: RunOptions) -> JournalPlace | None:
    if options.journal is None:
        return None
    return JournalPlace(options.journal, options.journal_size * 1_000_000)


def _watch(
    bundle: Bundle, settings: Settings, options: RunOptions, console: Console, threads: Threads
) -> Watch:
    outlets: list[Outlet] = []
    if path := options.status_file or service_file(os.environ):
        file = StatusFile(path, console.log)
        threads.watch([file.thread])
        outlets.append(file)
    if options.metrics is not None:
        from edge_runtime.status.metrics_server import MetricsServer

        server = MetricsServer(options.metrics, console.log)
        threads.watch([server.thread])
        outlets.append(server)
    board = Board()
    threads.watch([board.thread])
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
        board,
        threads,
    )


def _switch(
    store: Store,
    bundle: Bundle,
    settings: Settings,
    options: RunOptions,
    live: bool,
    console: Console,
) -> ModelSwitch:
    """What puts another bundle of the store in the place of `bundle`."""

    def serve(other: Bundle, may_start: Callable[[], bool]) -> Serving:
        process = options.process(other)
        terms = replace(settings, warmup=other.manifest.tiers.warmup).terms(live)
        model = WorkerCare(process, terms, CLOCK, console.log, may_start)
        return Serving(model, options.fallback(other, console.log))

    workshop = Workshop(options.read, serve)
    healthy = 60 * options.healthy_minutes
    return ModelSwitch(store, bundle, workshop, healthy, CLOCK, console.log)
