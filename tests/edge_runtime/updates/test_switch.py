"""The hot switch under a supervisor with scripted workers, a fake clock and a real store."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import faulty_worker
import pytest
from made_bundle import write_made_bundle
from supervised_run import BACK, PATIENT, Clock, FakeFallback, Run, WatchedProcess, assert_gone

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.record import Flag, Record
from edge_runtime.supervision.policy import BACK_OFF, Terms
from edge_runtime.supervision.worker_manager import Serving, WorkerManager
from edge_runtime.updates.pointers import Pointers
from edge_runtime.updates.slots import label
from edge_runtime.updates.store import Store
from edge_runtime.updates.switch import FallbackOnly, ModelLoader, ModelSwitch
from tests.apparatus.lock_holder import LockHolder
from tests.apparatus.power_cut import UnsyncedDisk

HEALTHY = 30.0  # seconds; the clock goes on by one each row


class StoredRun:
    """A supervised run from a store; `plans` says what each version's worker will suffer.

    events: by row, what is done to the store just before it.
    """

    def __init__(
        self,
        store: Store,
        plans: dict[int, str],
        events: dict[int, Callable[[], object]] | None = None,
        rows: int = 120,
        begin: Bundle | FallbackOnly | None = None,
        healthy: float = HEALTHY,
        announced: list[str] | None = None,
    ) -> None:
        self.store, self.plans, self.events = store, plans, events or {}
        self.clock = Clock()
        self.left_at_load: list[tuple[int, int | None]] = []
        self.processes: dict[int, list[WatchedProcess]] = {version: [] for version in plans}
        pointers = store.pointers()
        assert pointers.current
        first = begin or read_bundle(store.slots.path(pointers.current))
        self.lines: list[str] = []
        tell = ([] if announced is None else announced).append
        loader = ModelLoader(self.read, self.serve, lambda bundle: tell(label(bundle)))
        self.switch = ModelSwitch(store, first, loader, healthy, self.clock, self.lines.append)
        process = (
            WatchedProcess("none@0") if isinstance(first, FallbackOnly) else self.process(first)
        )
        self.run = Run(process, rows, before=self.before, clock=self.clock, exchange=self.switch)

    def __call__(self) -> list[Record]:
        self.run.supervisor.run()
        records = self.run.records
        assert [record.index for record in records] == list(range(len(records)))
        for process in (p for ps in self.processes.values() for p in ps):
            assert_gone(process)
        return records

    def read(self, path: Path) -> Bundle:
        return read_bundle(path, whole=False)

    def process(self, bundle: Bundle) -> WatchedProcess:
        version = bundle.manifest.version
        process = WatchedProcess(f"v{version}:{self.plans[version]}")
        self.processes[version].append(process)
        load = process.start

        def start() -> None:
            trial = Store(self.store.root).pointers().trial
            self.left_at_load.append((version, trial.attempts if trial else None))
            load()

        process.start = start
        return process

    def serve(self, bundle: Bundle, may_start: Callable[[], bool]) -> Serving:
        terms = Terms(PATIENT, faulty_worker.WARMUP, waits=True)
        model = WorkerManager(self.process(bundle), terms, self.clock, self.lines.append, may_start)
        return Serving(model, FakeFallback())

    def before(self, row: int) -> None:
        self.clock.now += 1.0
        for process in (p for ps in self.processes.values() for p in ps):
            if "load:mute" not in process.plan:
                process.wait_for_a_word()
        if row in self.events:
            self.events[row]()

    @property
    def log(self) -> str:
        return "\n".join([*self.lines, self.run.log])


def answered_by(records: list[Record]) -> list[tuple[str, int]]:
    """Who answered, and how many records on end; the fallback is an empty name."""
    runs: list[tuple[str, int]] = []
    for record in records:
        who = record.model if record.tier == 1 else ""
        if runs and runs[-1][0] == who:
            runs[-1] = (who, runs[-1][1] + 1)
        else:
            runs.append((who, 1))
    return runs


@pytest.fixture
def bundles(tmp_path: Path) -> dict[int, Bundle]:
    return {v: read_bundle(write_made_bundle(tmp_path / "made", v)) for v in (1, 2, 3)}


@pytest.fixture
def store(tmp_path: Path, bundles: dict[int, Bundle]) -> Store:
    store = Store(tmp_path / "store", UnsyncedDisk())
    store.install(bundles[1])
    return store


def test_a_new_bundle_takes_over_and_proves_itself(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    run = StoredRun(store, {1: "none@0", 2: "none@0"}, {20: lambda: store.install(bundles[2])})
    records = run()
    (old, before), (new, after) = answered_by(records)
    assert (old, new) == ("v1", "v2") and 20 <= before <= 24 and before + after == 120
    assert before > faulty_worker.WARMUP
    assert not any(Flag.WARMUP in record.flags for record in records)
    assert f"the model has caught up with the last {before - 1} samples" in run.log
    assert store.pointers() == Pointers(bundles[2].digest, previous=bundles[1].digest)
    assert f"sample {before}: made-2 answers from here on" in run.log
    assert "made-2 has proven itself" in run.log
    assert len(run.processes[1][0].pids) == len(run.processes[2][0].pids) == 1


@pytest.mark.parametrize("plan", ["load:fail", "load:exit"])
def test_a_bundle_that_cannot_load_never_answers(
    store: Store, bundles: dict[int, Bundle], plan: str
) -> None:
    run = StoredRun(store, {1: "none@0", 2: plan}, {20: lambda: store.install(bundles[2])})
    assert answered_by(run()) == [("v1", 120)]
    (process,) = run.processes[2]
    # Three attempts, each counted down on the disk by the time its load began.
    assert run.left_at_load == [(1, None), (2, 2), (2, 1), (2, 0)] and len(process.pids) == 3
    pointers = store.pointers()
    assert (pointers.current, pointers.trial) == (bundles[1].digest, None)
    words = {"load:fail": "self-test failed", "load:exit": "exit code 7"}
    assert pointers.rejected and words[plan] in pointers.rejected.reason
    assert "made-1 answers until it restarts" in run.log


def test_a_bundle_that_keeps_crashing_is_rolled_back(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    events = {20: lambda: store.install(bundles[2])}
    plan = ",".join(f"abort@{row}" for row in range(40, 60))
    run = StoredRun(store, {1: "none@0", 2: plan}, events, rows=80)
    runs = answered_by(run())
    assert [who for who, _ in runs] == ["v1", "v2", "", "v1"]
    assert len(run.processes[2][0].pids) == 3
    pointers = store.pointers()
    assert pointers.current == bundles[1].digest and pointers.rejected
    assert "used up its attempts" in pointers.rejected.reason
    assert "SIGABRT" in pointers.rejected.reason
    assert run.run.supervisor.summary.restarts == 2


def test_a_bundle_that_the_last_samples_break_never_answers(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    events = {20: lambda: store.install(bundles[2])}
    run = StoredRun(store, {1: "none@0", 2: "abort@18"}, events, rows=60)
    assert answered_by(run()) == [("v1", 60)]
    assert len(run.processes[2][0].pids) == 3
    rejected = store.pointers().rejected
    assert rejected and "could not take over" in rejected.reason and "SIGABRT" in rejected.reason


def test_one_crash_is_forgiven(store: Store, bundles: dict[int, Bundle]) -> None:
    events = {20: lambda: store.install(bundles[2])}
    run = StoredRun(store, {1: "none@0", 2: "abort@40"}, events, rows=300, healthy=120.0)
    assert [who for who, _ in answered_by(run())] == ["v1", "v2", "", "v2"]
    assert store.pointers().current == bundles[2].digest


def test_an_unhealthy_bundle_is_rolled_back(store: Store, bundles: dict[int, Bundle]) -> None:
    events = {20: lambda: store.install(bundles[2])}
    run = StoredRun(store, {1: "none@0", 2: "ill@*"}, events, rows=120)
    assert [who for who, _ in answered_by(run())] == ["v1", "", "v1"]
    rejected = store.pointers().rejected
    assert rejected and "was not healthy for 1.0 minutes" in rejected.reason


def test_going_back_by_command_while_it_runs(store: Store, bundles: dict[int, Bundle]) -> None:
    def back() -> None:
        store.change(lambda pointers: pointers.rolled_back())

    def again() -> None:
        stored = store.slots.find("made-2").bundle
        assert stored
        store.use(stored)

    events = {20: lambda: store.install(bundles[2]), 40: back, 60: again, 110: back}
    run = StoredRun(store, {1: "none@0", 2: "none@0"}, events, rows=140)
    assert [who for who, _ in answered_by(run())] == ["v1", "v2", "v1", "v2", "v1"]
    assert store.pointers().previous == bundles[2].digest


def test_a_better_one_comes_before_the_first_is_loaded(
    store: Store, bundles: dict[int, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.supervision.policy.HANG_IDLE", 0.5)
    events = {20: lambda: store.install(bundles[2]), 30: lambda: store.install(bundles[3])}
    run = StoredRun(store, {1: "none@0", 2: "load:mute", 3: "none@0"}, events)
    assert [who for who, _ in answered_by(run())] == ["v1", "v3"]


@pytest.mark.parametrize(
    ("change", "words"), [({"period": 0.25}, "sample period"), ({"channels": None}, "channels")]
)
def test_other_samples_need_a_restart(
    store: Store, bundles: dict[int, Bundle], tmp_path: Path, change: dict, words: str
) -> None:
    if "channels" in change:
        first, *others = bundles[1].manifest.channels
        change = {"channels": (replace(first, name="unknown"), *others)}
    other = read_bundle(write_made_bundle(tmp_path, 2, **change))
    run = StoredRun(store, {1: "none@0"}, {20: lambda: store.install(other)}, rows=60)
    assert answered_by(run()) == [("v1", 60)]
    assert run.log.count("restart needed") == 1 and words in run.log
    assert store.pointers().trial.attempts == 3  # for the next start


def test_a_bundle_with_the_same_channels_in_another_order_takes_over(
    store: Store, bundles: dict[int, Bundle], tmp_path: Path
) -> None:
    first, *others = bundles[1].manifest.channels
    other = read_bundle(write_made_bundle(tmp_path, 2, channels=(*others, first)))
    run = StoredRun(store, {1: "none@0", 2: "none@0"}, {20: lambda: store.install(other)})
    assert [who for who, _ in answered_by(run())] == ["v1", "v2"]


def test_a_run_without_a_period_gets_that_of_the_bundle_that_takes_over(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    begin = FallbackOnly((*bundles[1].manifest.channel_names, "counter"), None)
    run = StoredRun(store, {1: "none@0"}, rows=40, begin=begin)
    assert [who for who, _ in answered_by(run())] == ["", "v1"]


def test_a_run_that_begins_with_the_trial(store: Store, bundles: dict[int, Bundle]) -> None:
    store.install(bundles[2])
    trial = read_bundle(store.slots.path(bundles[2].digest))
    run = StoredRun(store, {1: "none@0", 2: "none@0"}, rows=20, begin=trial)
    assert answered_by(run()) == [("v2", 20)]
    assert store.pointers().trial.attempts == 2
    run.switch.spare()
    assert store.pointers().trial.attempts == 3  # it ended in good order
    again = StoredRun(store, {1: "none@0", 2: "load:fail"}, rows=40, begin=trial)
    assert [who for who, _ in answered_by(again())] == ["", "v1"]
    assert store.pointers().current == bundles[1].digest and store.pointers().trial is None
    again.switch.spare()
    assert store.pointers().trial is None


def test_an_attempt_that_cannot_be_counted_is_not_made(
    store: Store, bundles: dict[int, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        def refuse(*_: object) -> None:
            raise GruardError("pointers.json: cannot be written (No space left on device)")

        store.install(bundles[2])
        monkeypatch.setattr(store.disk, "write", refuse)

    run = StoredRun(store, {1: "none@0", 2: "none@0"}, {20: full}, rows=60)
    assert answered_by(run()) == [("v1", 60)]
    assert run.processes[2][0].pids == [] and "No space left" in run.log
    assert store.pointers().trial.attempts == 3


def test_a_trial_that_is_lost_and_cannot_be_ended_is_told_once(
    store: Store, bundles: dict[int, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise GruardError("pointers.json: cannot be written (No space left on device)")

    store.install(bundles[2])
    trial = read_bundle(store.slots.path(bundles[2].digest))
    run = StoredRun(store, {1: "none@0", 2: "load:fail"}, rows=40, begin=trial)
    monkeypatch.setattr(store.disk, "write", refuse)
    assert [who for who, _ in answered_by(run())] == ["", "v1"]
    assert run.log.count("used up its attempts") == 1


def test_a_verdict_that_cannot_be_kept_is_told_once_a_minute(
    store: Store, bundles: dict[int, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def become_read_only() -> None:
        def refuse(*_: object) -> None:
            raise GruardError("pointers.json: cannot be written (Read-only file system)")

        monkeypatch.setattr(store.disk, "write", refuse)

    store.install(bundles[2])
    trial = read_bundle(store.slots.path(bundles[2].digest))
    plans, events = {1: "none@0", 2: "none@0"}, {1: become_read_only}
    run = StoredRun(store, plans, events, rows=200, begin=trial, healthy=5.0)
    assert answered_by(run()) == [("v2", 200)]
    told = [line for line in run.lines if "Read-only file system" in line]
    assert 2 <= len(told) <= 4 and "times since the last line" in told[1]
    assert store.pointers().trial is not None


# While another process has the store locked.


@pytest.fixture
def holder(store: Store) -> Iterator[LockHolder]:
    holder = LockHolder(store.root / "pointers.lock")
    yield holder
    holder.release()


def test_a_proof_is_written_once_the_lock_is_free(
    store: Store, bundles: dict[int, Bundle], holder: LockHolder
) -> None:
    store.install(bundles[2])
    trial = read_bundle(store.slots.path(bundles[2].digest))
    seen: list[Pointers] = []
    events = {1: holder.hold, 59: lambda: seen.append(store.pointers()), 60: holder.release}
    run = StoredRun(store, {1: "none@0", 2: "none@0"}, events, 80, trial, healthy=5.0)
    assert answered_by(run()) == [("v2", 80)]
    assert seen[0].trial and store.pointers() == Pointers(trial.digest, bundles[1].digest)
    assert run.log.count("pointers.lock: is locked") == 1
    assert run.log.count("made-2 has proven itself") == 1
    assert run.log.index("can be written again") < run.log.index("made-2 has proven itself")


def test_a_failure_is_written_once_the_lock_is_free(
    store: Store, bundles: dict[int, Bundle], holder: LockHolder
) -> None:
    store.install(bundles[2])
    trial = read_bundle(store.slots.path(bundles[2].digest))
    seen: list[Pointers] = []
    events = {1: holder.hold, 99: lambda: seen.append(store.pointers()), 100: holder.release}
    run = StoredRun(store, {1: "none@0", 2: "ill@*"}, events, 120, trial)
    assert [who for who, _ in answered_by(run())] == ["", "v1"]
    assert seen[0].trial and not store.pointers().trial
    rejected = store.pointers().rejected
    assert rejected and "was not healthy for 1.0 minutes" in rejected.reason
    assert run.log.count("rolled back") == 1


def test_the_time_of_a_lock_does_not_count_against_the_trial(
    store: Store, bundles: dict[int, Bundle], holder: LockHolder
) -> None:
    store.install(bundles[2])
    trial = read_bundle(store.slots.path(bundles[2].digest))
    holder.hold()
    run = StoredRun(store, {1: "none@0", 2: "none@0"}, {150: holder.release}, 180, trial)
    assert [who for who, _ in answered_by(run())] == ["", "v2"]
    assert store.pointers().rejected is None


@pytest.mark.parametrize("begun", [True, False], ids=["from the start", "while it runs"])
def test_an_attempt_is_made_once_the_lock_is_free(
    store: Store, bundles: dict[int, Bundle], holder: LockHolder, begun: bool
) -> None:
    def install() -> None:
        store.install(bundles[2])
        holder.hold()

    events = {40: holder.release} | ({} if begun else {20: install})
    begin = None
    if begun:
        install()
        begin = read_bundle(store.slots.path(bundles[2].digest))
    run = StoredRun(store, {1: "none@0", 2: "none@0"}, events, 300, begin, healthy=120.0)
    (who, before), (model, _) = answered_by(run())
    assert (who, model) == ("" if begun else "v1", "v2")
    assert 40 <= before < 50 + begun * BACK
    assert [left for left in run.left_at_load if left[0] == 2] == [(2, 2)]
    assert store.pointers().current == bundles[2].digest


def test_an_outcome_that_waits_is_written_at_the_end(
    store: Store, bundles: dict[int, Bundle], holder: LockHolder
) -> None:
    store.install(bundles[2])
    trial = read_bundle(store.slots.path(bundles[2].digest))
    run = StoredRun(store, {2: "none@0"}, {1: holder.hold}, 20, trial, healthy=5.0)
    run()
    assert store.pointers().trial
    holder.release()
    run.switch.spare()
    assert store.pointers() == Pointers(trial.digest, bundles[1].digest)


def test_a_lock_that_is_held_for_a_moment_is_not_told(
    store: Store, bundles: dict[int, Bundle], holder: LockHolder
) -> None:
    store.install(bundles[2])
    trial = read_bundle(store.slots.path(bundles[2].digest))
    run = StoredRun(store, {2: "none@0"}, begin=trial)
    with holder:
        assert not run.switch.may_start()
        run.clock.now += 0.9
        assert not run.switch.may_start() and run.lines == []
        run.clock.now += 0.1
        assert not run.switch.may_start() and "is locked" in run.lines[0]
    assert run.switch.may_start() and "can be written again" in run.lines[1]
    run.switch.stop()


def test_a_store_that_vanishes_or_rots_stops_nothing(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    log: list[str] = []
    store = Store(store.root, store.disk, log.append)

    def rot() -> None:
        for name in ("pointers.json", "pointers.copy.json"):
            (store.root / name).write_bytes(b"\0" * 40)

    events = {20: rot, 40: lambda: shutil.rmtree(store.root)}
    run = StoredRun(store, {1: "none@0"}, events, rows=60)
    assert answered_by(run()) == [("v1", 60)]
    rebuilt = "pointers.json and its copy are damaged; made-1 is current"
    assert sum(rebuilt in line for line in log) == 1 and len(log) == 3  # the files, and the end


# While no bundle is usable.


def test_the_fallback_answers_until_the_current_bundle_is_mended(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    damaged = store.slots.path(bundles[1].digest) / "golden.npz"
    damaged.chmod(0o644)
    damaged.write_bytes(b"rot")
    announced: list[str] = []
    manifest = bundles[1].manifest
    begin = FallbackOnly(manifest.channel_names, manifest.period)
    events = {70: lambda: store.install(bundles[1])}
    run = StoredRun(store, {1: "none@0"}, events, rows=120, begin=begin, announced=announced)
    (nobody, before), (model, _) = answered_by(run())
    assert (nobody, model) == ("", "v1") and 70 <= before <= 74
    assert announced == ["made-1"] and store.pointers() == Pointers(bundles[1].digest)
    # It is tried every minute; the same reason is told once.
    assert run.log.count("golden.npz: does not match") == 1
    assert f"sample {before}: made-1 answers from here on" in run.log


def test_a_new_bundle_goes_on_trial_in_place_of_the_fallback(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    shutil.rmtree(store.slots.path(bundles[1].digest))
    begin = FallbackOnly(bundles[1].manifest.channel_names, bundles[1].manifest.period)
    events = {20: lambda: store.install(bundles[2])}
    run = StoredRun(store, {2: "none@0"}, events, rows=120, begin=begin)
    assert [who for who, _ in answered_by(run())] == ["", "v2"]
    assert store.pointers().current == bundles[2].digest and "has proven itself" in run.log


def test_other_channels_than_the_fallback_s_need_a_restart(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    begin = FallbackOnly(("other",), None)
    run = StoredRun(store, {1: "none@0"}, rows=40, begin=begin)
    assert answered_by(run()) == [("", 40)]
    assert "its channels are not those of the fallback; restart needed" in run.log


def test_a_current_model_that_breaks_is_restarted_without_counting(
    store: Store, bundles: dict[int, Bundle]
) -> None:
    run = StoredRun(store, {1: "abort@5"}, rows=160)
    assert [who for who, _ in answered_by(run())] == ["v1", "", "v1"]
    crashing = StoredRun(store, {1: "abort@*"}, rows=60)
    assert answered_by(crashing()) == [("", 60)]
    # A row a second: at the start, and 0, 1, 5 and 30 seconds after a failure.
    assert len(crashing.processes[1][0].pids) == 1 + len([wait for wait in BACK_OFF if wait < 60])
    assert store.pointers() == Pointers(bundles[1].digest)
