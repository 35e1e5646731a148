"""Assemble the parts of a run from the options of `gruard run`, without starting it."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.alarm import AlarmEvent
from edge_runtime.alarms.command import AlarmCommand, require_program
from edge_runtime.alarms.log import NO_MACHINE, AlarmLog, KnownMachine
from edge_runtime.bundle.manifest import FallbackConstants, Manifest
from edge_runtime.bundle.reader import Bundle
from edge_runtime.calibration import trial_of
from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.detector.fallback import Fallback, ScorelessFallback, SelectedFallback
from edge_runtime.detector.kernels import CORE_KERNEL_ID, Delegate, Kernel
from edge_runtime.detector.thresholds import local_file, local_thresholds, threshold_of, to_word
from edge_runtime.errors import Complaints, GruardError, LimitedLog
from edge_runtime.mute import MuteKeeper
from edge_runtime.native.engine import NativeFallback
from edge_runtime.readings.named_source import open_named
from edge_runtime.readings.parts import count_rows
from edge_runtime.readings.recorder import RecordedSource, Recorder, open_recorder
from edge_runtime.record import Flag
from edge_runtime.recurring_alarms import RecurringKeeper
from edge_runtime.sinks.open_sink import JournalPlace, open_sinks
from edge_runtime.sinks.sink import Existing
from edge_runtime.sources.counters import CountingSource
from edge_runtime.sources.open_source import open_source, open_unnamed
from edge_runtime.sources.source import Source
from edge_runtime.status.board import BoardMonitor
from edge_runtime.status.publisher import Outlet, StatusPublisher
from edge_runtime.status.snapshot import StatusFile, service_file
from edge_runtime.supervision.change_keeper import ChangeKeeper
from edge_runtime.supervision.injection import parse_injections
from edge_runtime.supervision.starts import LivenessOptions, StartDelay, service_folder
from edge_runtime.supervision.summary import Console
from edge_runtime.supervision.supervisor import (
    Observe,
    RunEnvironment,
    RunState,
    RunTiming,
    Supervisor,
    Turn,
    answer_deadline,
)
from edge_runtime.supervision.worker_manager import (
    NoExchange,
    Serving,
    ShadowDetector,
    WorkerManager,
)
from edge_runtime.supervision.worker_process import BundleIdentity, WorkerProcess, worker_command
from edge_runtime.threads import Threads
from edge_runtime.updates.choice import Admission, Start, choose, start_from
from edge_runtime.updates.disk import StoreDisk, make_folders
from edge_runtime.updates.store import Store
from edge_runtime.updates.switch import FallbackOnly, ModelLoader, ModelSwitch
from edge_runtime.words import alarm_line

if TYPE_CHECKING:  # imported only where a run learns
    from edge_runtime.autolearn.keeper import LearningKeeper

CLOCK = time.monotonic
UNKNOWN_WARMUP = 100
"""Warm-up samples of a model that may take over from the fallback; most bundles need no more."""


@dataclass(frozen=True)
class RunOptions:
    """The options of `gruard run`; see its --help. bundle: None takes the one in the store."""

    bundle: Path | None
    store: Path
    source: str
    sinks: tuple[str, ...]
    journal: Path | None
    journal_size: int
    keep_readings: Path | None
    keep_megabytes: int
    learn: float | None
    relearn: float | None
    period: float | None
    channels: tuple[str, ...]
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
    language: str
    on_alarm: tuple[str, ...] | None

    @property
    def existing(self) -> Existing:
        """What happens to sink files that exist already."""
        if self.force:
            return Existing.OVERWRITTEN
        return Existing.CONTINUED if self.append else Existing.REFUSED

    @property
    def admission(self) -> Admission:
        """Which bundles may be run."""
        return Admission(self.allow_failed, self.trusted_keys)

    @property
    def learns(self) -> bool:
        """Whether the run learns from all channels of its source, at first or again."""
        return self.learn is not None or self.relearn is not None

    @property
    def readings(self) -> Path | None:
        """The folder of the readings; None keeps none."""
        return self.keep_readings or (self.store / "readings" if self.learns else None)

    def fallback(
        self, bundle: Bundle, channels: Sequence[str], log: Callable[[str], None]
    ) -> ShadowDetector:
        """Return the fallback for `bundle`; by the C core if that may run the model, too.

        channels: of the run. log: takes a line when its memory was repaired.
        """
        columns = _columns(bundle.manifest, channels)
        if self.kernel in (None, CORE_KERNEL_ID):
            with suppress(GruardError):  # the worker will report why the core cannot be used
                return SelectedFallback(NativeFallback(bundle, log), columns)
        return SelectedFallback(Fallback(bundle.manifest, bundle.model_hash, log), columns)

    def process(
        self, bundle: Bundle | None, channels: Sequence[str], log: Callable[[str], None]
    ) -> WorkerProcess:
        """Return the worker process for `bundle`, not yet started; without one it never is.

        channels: of the run.
        log: takes a line when the bundle is a trial, and one when thresholds of this machine apply.
        """
        if bundle is None:
            nothing = BundleIdentity("", "", frozenset(), lambda change: "is of no bundle")
            return WorkerProcess((sys.executable, "-c", ""), identity=nothing, clock=CLOCK)
        if trial := trial_of(bundle.manifest):
            log(f"{bundle.path}: {trial}")
        command = partial(worker_command, bundle.path, self.allow_failed)
        # If a delegate fails, the default kernel runs the model.
        kernels = (self.kernel, None) if isinstance(self.kernel, Delegate) else (self.kernel,)
        own = _own_thresholds(bundle, log)
        commands = [command(kernel, self.trusted_keys, self.debug, own) for kernel in kernels]
        identity = BundleIdentity.of(bundle)
        columns = _columns(bundle.manifest, channels)
        return WorkerProcess(
            *commands, identity=identity, clock=CLOCK, debug=self.debug, columns=columns
        )


def _columns(named: Manifest | FallbackConstants, channels: Sequence[str]) -> list[int] | None:
    """Return where the run's `channels` have those of a bundle; None when they are the same."""
    if tuple(channels) == named.channel_names:
        return None
    return [channels.index(name) for name in named.channel_names]


def _own_thresholds(bundle: Bundle, log: Callable[[str], None]) -> str | None:
    """Read this machine's thresholds once for all workers of the run, as `to_word` writes them.

    None where they cannot be read: then each worker tries, and reports why it does not run.
    """
    try:
        thresholds = local_thresholds(bundle)
    except GruardError:
        return None
    if thresholds:
        values = ", ".join(f"{each.value:.3f} on {kernel}" for kernel, each in thresholds.items())
        log(f"{local_file(bundle.path)}: threshold {values}; holds until this run ends")
    return to_word(bundle, thresholds)


@dataclass(frozen=True)
class RunSubject:
    """What a run watches, by its bundle, else by the rest of a damaged one, else by its source.

    version and model: 0 and empty where there is no bundle.
    """

    name: str
    version: int
    model: str
    channels: tuple[str, ...]
    period: float | None
    warmup: int
    fallback: ShadowDetector
    columns: Columns = NOTHING_SAID
    machine: KnownMachine = NO_MACHINE


@dataclass(frozen=True)
class Assembled:
    """A run that is ready to start. switch: None where no other bundle can take over.

    learning: None where nothing is learned. command: of alarms, None without one.
    delay: how long later starts of the service wait.
    """

    supervisor: Supervisor
    watch: StatusPublisher
    switch: ModelSwitch | None
    delay: StartDelay
    learning: "LearningKeeper | None" = None
    command: AlarmCommand | None = None


def assemble(options: RunOptions) -> Assembled:
    """Open all parts of the run. Raises GruardError when one cannot be opened.

    A service whose last starts did not last waits first.
    """
    console = Console(sys.stderr, CLOCK)
    state = options.state or service_folder(os.environ, "STATE_DIRECTORY")
    liveness = LivenessOptions(state, options.watchdog, options.watchdog_timeout)
    with liveness.delay(os.environ, CLOCK, time.sleep, console.log) as delay:
        return _assemble(options, console, liveness, delay)


def _assemble(
    options: RunOptions, console: Console, liveness: LivenessOptions, delay: StartDelay
) -> Assembled:
    if options.on_alarm:
        require_program(options.on_alarm)
    store = Store(options.store, log=console.log)
    start = _start(store, options, console)
    complaints = Complaints(console.log)
    threads = Threads(console.log, CLOCK)
    outlets = _outlets(options, console, threads)
    with ExitStack() as undo:
        source, watched = _open_source(start, options, complaints, console)
        undo.callback(source.close)
        injections = parse_injections(options.inject, watched.channels)
        timing = _timing(watched, options)
        liveness.check(os.environ, timing.interval or timing.period)
        watch = _watch(watched, start.reason, timing, outlets, console, threads)
        size = options.journal_size * 1_000_000
        journal = JournalPlace(options.journal, size) if options.journal else None
        # A recording gives the same records each time: it neither reads nor keeps earlier state.
        state, wall = (liveness.state, time.time) if source.live else (None, None)
        sink = open_sinks(options.sinks, options.existing, console.log, source.live, journal, state)
        undo.pop_all()  # from here on the supervisor closes both
    observe: Observe = watch.observe
    turn: Turn = watch.turn
    recorder = _recorder(options, watched.channels, console)
    learning = None
    if recorder and options.learns:
        learning = _learning(options, watched, start, recorder, source.live, state, console)
        watch.learning = learning.status
        turn = _after(learning.tend, turn)
    if recorder:
        see = learning.see if learning else lambda reading, now: None
        source = RecordedSource(source, recorder, CLOCK, see)
        observe = recorder.before(observe)
    if counters := watched.columns.counters:  # after the recorder, which keeps the counts
        at = [watched.channels.index(name) for name in counters]
        source = CountingSource(source, at, watched.period, CLOCK)
    threads.watch((*getattr(source, "threads", ()), *sink.threads))
    command = AlarmCommand(options.on_alarm, console.log) if options.on_alarm else None
    if command:
        threads.watch([command.thread])
    alarms = _alarms(options, watched, state, wall, console, command)
    switch = None
    if not options.bundle:
        counted = frozenset(watched.columns.counters)
        samples = FallbackOnly(watched.channels, watched.period, counted)
        switch = _switch(
            store,
            start.bundle or samples,
            samples,
            timing,
            options,
            source.live,
            console,
            watch,
            learning,
            alarms,
        )
        if learning:
            learning.on_install = switch.look_soon
    if start.hold:
        start.hold.release()  # the switch has its own
    listeners, started_after = liveness.begin(os.environ, CLOCK, console.log, delay)
    process = options.process(start.bundle, watched.channels, console.log)
    changes = ChangeKeeper(state, CLOCK, time.time, console.log)
    recurring = RecurringKeeper(state, timing.period, wall, CLOCK, console.log)
    mutes = MuteKeeper(state, CLOCK, time.time, console.log)
    if start.bundle:
        process.change = changes.load(process.bundle, process.identity.fault_of_change)
    supervisor = Supervisor(
        source,
        complaints,
        sink,
        process,
        watched.fallback,
        injections,
        timing,
        RunEnvironment(CLOCK, time.sleep, console, listeners, observe, turn),
        switch or NoExchange(has_model=start.bundle is not None),
        changes,
        recurring,
        mutes,
        alarms,
    )
    if command:
        supervisor.summary.on_alarm = command.counts
    supervisor.summary.language = options.language
    supervisor.summary.started_after = started_after
    supervisor.summary.skipped = lambda: sink.skipped
    supervisor.summary.threads = threads.states
    return Assembled(supervisor, watch, switch, delay, learning, command)


def _start(store: Store, options: RunOptions, console: Console) -> Start:
    """Return what the run starts with; store what later starts need if the slots are damaged."""
    if options.bundle:
        start = start_from(options.bundle, options.admission, console.log)
        if start.bundle:
            _check_kernel(start.bundle, options.kernel)
        return start
    start = choose(store, options.admission, console.log, empty=options.learn is not None)
    if start.bundle and start.bundle.digest == store.pointers().current:
        try:
            store.remember(start.bundle)
        except GruardError as error:
            console.log(str(error))
    return start


def _check_kernel(bundle: Bundle, kernel: Kernel | None) -> None:
    """Raise GruardError when the user named a kernel that `bundle` has no threshold for.

    The worker reports a damaged file of thresholds. A delegate is not checked: the CPU follows it.
    """
    if not isinstance(kernel, str) or bundle.manifest.linear:
        return
    try:
        local = local_thresholds(bundle)
    except GruardError:
        return
    threshold_of(replace(bundle, local=local), kernel)


def _open_source(
    start: Start, options: RunOptions, complaints: Complaints, console: Console
) -> tuple[Source, RunSubject]:
    if options.learns:
        return _open_all(start, options, complaints, console)
    subject = start.bundle or start.constants
    if subject is None:
        source, channels = open_unnamed(options.source, complaints)
        return source, _nothing_known(channels, None, ScorelessFallback(channels))
    watched = _subject(subject, _named(subject).channel_names, options, console)
    channels, period, said = watched.channels, watched.period, watched.columns
    return open_source(options.source, channels, period, complaints, said), watched


def _open_all(
    start: Start, options: RunOptions, complaints: Complaints, console: Console
) -> tuple[Source, RunSubject]:
    """Open all channels of the source, of which the bundle may have fewer."""
    subject = start.bundle or start.constants
    period = _named(subject).period if subject else options.period
    source, channels = open_named(options.source, options.channels, period, complaints)
    missing = sorted({*_named(subject).channel_names} - {*channels}) if subject else []
    if missing and start.bundle:
        source.close()
        name = start.bundle.manifest.name
        raise GruardError(f"{options.source}: lacks {', '.join(missing)}, which {name} needs")
    if subject is None or missing:
        learner = SelectedFallback(ScorelessFallback(channels), None, Flag.LEARNING)
        return source, _nothing_known(channels, period, learner)
    return source, _subject(subject, channels, options, console)


def _named(subject: Bundle | FallbackConstants) -> Manifest | FallbackConstants:
    return subject if isinstance(subject, FallbackConstants) else subject.manifest


def _nothing_known(
    channels: tuple[str, ...], period: float | None, fallback: ShadowDetector
) -> RunSubject:
    return RunSubject("none", 0, "", channels, period, UNKNOWN_WARMUP, fallback)


def _subject(
    of: Bundle | FallbackConstants, channels: tuple[str, ...], options: RunOptions, console: Console
) -> RunSubject:
    """Return what a run of these channels watches with a bundle, or with the rest of one."""
    if isinstance(of, FallbackConstants):
        flags = Flag.LEARNING if options.learn is not None else Flag(0)
        limits = Fallback(of, "", console.log)
        rest = SelectedFallback(limits, _columns(of, channels), flags)
        known = (of.columns, KnownMachine.of(of))
        return RunSubject(of.name, 0, "", channels, of.period, UNKNOWN_WARMUP, rest, *known)
    return RunSubject(
        of.manifest.name,
        of.manifest.version,
        of.model_hash,
        channels,
        of.manifest.period,
        of.manifest.tiers.warmup,
        options.fallback(of, channels, console.log),
        of.manifest.columns,
        KnownMachine.of(of.manifest),
    )


def _timing(watched: RunSubject, options: RunOptions) -> RunTiming:
    interval = 1 / options.rate if options.rate else None
    deadline = options.deadline or answer_deadline(interval or watched.period)
    return RunTiming(len(watched.channels), watched.warmup, watched.period, deadline, interval)


def _recorder(options: RunOptions, channels: Sequence[str], console: Console) -> Recorder | None:
    """Open what keeps the readings, if asked for; the run goes on where it cannot be opened."""
    if options.readings is None:
        return None
    if options.learns:
        make_folders(StoreDisk(), options.store)
    capacity = options.keep_megabytes * 1_000_000
    try:
        return open_recorder(options.readings, channels, capacity, console.log)
    except GruardError as error:
        if options.learns:
            raise
        console.log(f"readings are not kept: {error}")
        return None


def _learning(
    options: RunOptions,
    watched: RunSubject,
    start: Start,
    recorder: Recorder,
    live: bool,
    state: Path | None,
    console: Console,
) -> "LearningKeeper":
    """Return what learns during the run."""
    from edge_runtime.autolearn.keeper import LearningKeeper, LearningPlan

    assert options.readings is not None
    plan = LearningPlan(
        options.store,
        options.readings,
        state,
        options.learn,
        options.relearn,
        watched.period,
        options.keep_megabytes * 1_000_000,
    )
    has_model = start.bundle is not None
    rows = 0 if has_model else count_rows(options.readings)
    return LearningKeeper(plan, recorder, rows, has_model, live, CLOCK, time.time, console.log)


def _alarms(
    options: RunOptions,
    watched: RunSubject,
    state: Path | None,
    wall: Callable[[], float] | None,
    console: Console,
    command: AlarmCommand | None,
) -> AlarmLog:
    """Return what follows the alarms, logs them, and remembers them."""
    lines = LimitedLog(console.log, CLOCK)

    def tell(event: AlarmEvent) -> None:
        lines.trouble(event.moment, alarm_line(event.alarm, options.language))
        if command:
            command.put(event)

    log = AlarmLog(state, watched.channels, CLOCK, wall, console.log, tell, options.language)
    log.machine = watched.machine
    return log


def _after(first: Callable[[], None], turn: Turn) -> Turn:
    """Return a turn of the loop that calls `first` before `turn`."""

    def both(state: Callable[[], RunState]) -> None:
        first()
        turn(state)

    return both


def _outlets(options: RunOptions, console: Console, threads: Threads) -> list[Outlet]:
    """Open status file and metrics; before the source, which may wait for its first line."""
    outlets: list[Outlet] = []
    if path := options.status_file or service_file(os.environ):
        file = StatusFile(path, console.log)
        threads.watch([file.thread])
        outlets.append(file)
    if options.metrics is not None:
        from edge_runtime.status.metrics import MetricsServer

        server = MetricsServer(options.metrics, console.log)
        threads.watch([server.thread])
        outlets.append(server)
    return outlets


def _watch(
    watched: RunSubject,
    reason: str,
    timing: RunTiming,
    outlets: Sequence[Outlet],
    console: Console,
    threads: Threads,
) -> StatusPublisher:
    board = BoardMonitor()
    threads.watch([board.thread])
    slowest = max(timing.interval or watched.period or 0.0, timing.deadline)
    watch = StatusPublisher(
        watched.name,
        watched.version,
        watched.model,
        watched.channels,
        slowest,
        outlets,
        console.log,
        board,
        threads,
    )
    watch.no_bundle = reason
    return watch


def _switch(
    store: Store,
    running: Bundle | FallbackOnly,
    samples: FallbackOnly,
    timing: RunTiming,
    options: RunOptions,
    live: bool,
    console: Console,
    watch: StatusPublisher,
    learning: "LearningKeeper | None",
    alarms: AlarmLog,
) -> ModelSwitch:
    """Return the switch that lets another bundle of the store take over from `running`."""

    def serve(other: Bundle, may_start: Callable[[], bool]) -> Serving:
        process = options.process(other, samples.channels, console.log)
        terms = replace(timing, warmup=other.manifest.tiers.warmup).terms(live)
        model = WorkerManager(process, terms, CLOCK, console.log, may_start)
        fallback = options.fallback(other, samples.channels, console.log)
        return Serving(model, fallback, other.manifest.period)

    def announce(other: Bundle) -> None:
        if learning:
            learning.answered()
        alarms.machine = KnownMachine.of(other.manifest)
        watch.answered_by(other.manifest.name, other.manifest.version, other.model_hash)

    loader = ModelLoader(options.admission.read, serve, announce)
    healthy = 60 * options.healthy_minutes
    return ModelSwitch(store, running, loader, healthy, CLOCK, console.log, samples)
