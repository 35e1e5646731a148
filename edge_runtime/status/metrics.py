"""A snapshot as Prometheus reads it: the text exposition format, version 0.0.4."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from edge_runtime.sources.sample_clock import Event
from edge_runtime.status.board import CONDITIONS
from edge_runtime.status.snapshot import Answer, Counts, Health, Snapshot
from edge_runtime.supervision.policy import Phase

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """One family. samples: a value for each set of labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: tuple[tuple[Labels, float], ...]


def exposition(snapshot: Snapshot, now: float) -> str:
    """The page for one scrape at monotonic time `now`."""
    return "".join(_family(metric) for metric in _metrics(snapshot, now) if metric.samples)


def _metrics(snapshot: Snapshot, now: float) -> list[Metric]:
    return [
        *_run(snapshot, now),
        *_counted(snapshot.counts),
        *(_answered(snapshot.answer) if snapshot.answer else ()),
        *_change(snapshot),
        *_channels(snapshot),
        *_threads(snapshot),
        *(_board(snapshot.health) if snapshot.health else ()),
    ]


def _run(snapshot: Snapshot, now: float) -> list[Metric]:
    model, process = snapshot.model, snapshot.process
    about = {"bundle": model.name, "version": str(model.version), "model": model.hash}
    phases = [({"phase": phase.value}, phase.value == model.phase) for phase in Phase]
    missing = [] if model.hash else [({"reason": model.waiting}, 1.0)]
    rate = snapshot.rate
    return [
        _gauge("info", "What is run; always 1.", [(about | {"kernel": model.kernel}, 1.0)]),
        _value("start_time_seconds", "Start of the run, epoch seconds.", process.started),
        _value("last_answer_age_seconds", "Time since the last snapshot.", now - process.told),
        _gauge("worker_phase", "1 for what the worker is doing.", phases),
        _gauge("no_bundle", "1 while only the fallback answers, and why.", missing),
        _value("samples_per_second", "Pace, over a second or so.", rate),
    ]


def _counted(counts: Counts) -> list[Metric]:
    changes = [
        (dict(zip(("from", "to"), change.split("→"), strict=True)), float(count))
        for change, count in counts.transitions.items()
    ]
    median, slowest = counts.latency_median_ms, counts.latency_max_ms
    timing = {str(event): 0 for event in get_args(Event)} | dict(counts.timing)
    return [
        _counter("records", "Records by the tier that vouches.", _each("tier", counts.tiers)),
        _counter("tier_changes", "Changes of tier.", changes),
        _counter("flags", "Records by flag.", _each("flag", counts.flags)),
        _counter("alarms", "Alarms; one that pauses counts once.", [({}, counts.alarms)]),
        _counter("recurring_alarms", "Of them, those that recur.", [({}, counts.recurring)]),
        # No counter: an alarm moves to another kind when the diagnosis learns more.
        _gauge("alarms_by_kind", "Alarms by the kind named last.", _each("kind", counts.kinds)),
        _counter("restarts", "Restarts of the worker.", [({}, counts.restarts)]),
        _counter("dropped_records", "Records no sink took.", [({}, counts.dropped)]),
        _counter("skipped_entries", "Journal entries that are no records.", [({}, counts.skipped)]),
        _counter("outages", "Times that the source was away.", [({}, counts.outages)]),
        _counter("bad_cells", "Unreadable cells.", [({}, counts.bad_cells)]),
        _counter("bad_rows", "Unreadable rows.", [({}, counts.bad_rows)]),
        _counter("timing", "What befell the times of readings.", _each("trouble", timing)),
        _value("answer_median_seconds", "Usual time to a record.", median and median / 1e3),
        _value("answer_slowest_seconds", "Longest time to a record.", slowest and slowest / 1e3),
    ]


def _answered(answer: Answer) -> list[Metric]:
    return [
        _value("tier", "Who answers now: 1 model, 2 model alone, 3 fallback.", answer.tier),
        _value("valid", "Whether a healthy model vouches.", answer.valid),
        _value("alarm", "Whether an alarm is on.", answer.alarm),
        _value("score", "Of the last record; higher is stranger.", answer.score),
        _value("threshold", "Of the detector that answered.", answer.threshold),
    ]


def _change(snapshot: Snapshot) -> list[Metric]:
    change = snapshot.change
    is_open = change is not None and change.accepted is None
    channels = dict.fromkeys(change.channels, 1) if change and is_open else {}
    return [
        _value("changed", "Whether a change was reported that nobody has accepted.", is_open),
        _value("change_time_seconds", "Of its report, epoch.", change.since if change else None),
        _gauge("channel_changed", "1 for those it is on.", _each("channel", channels)),
    ]


def _channels(snapshot: Snapshot) -> list[Metric]:
    channels = snapshot.channels
    masked = {c.name: c.masked_records for c in channels}
    imputed = {c.name: c.imputed_records for c in channels}
    blamed = {c.name: int(c.blamed) for c in channels}
    return [
        _counter("channel_masked", "Records without the reading.", _each("channel", masked)),
        _counter("channel_imputed", "Records that distrust it.", _each("channel", imputed)),
        _gauge("channel_blamed", "Whether the alarm is about it.", _each("channel", blamed)),
    ]


def _threads(snapshot: Snapshot) -> list[Metric]:
    threads = [({"thread": thread.name}, thread) for thread in snapshot.threads]
    return [
        _gauge(
            "thread_alive",
            "Whether it is at work, or has nothing more to do.",
            [(name, thread.alive or thread.ended) for name, thread in threads],
        ),
        _gauge(
            "thread_hung",
            "Whether it has not shown itself for a minute.",
            [(name, thread.hung) for name, thread in threads],
        ),
        _gauge(
            "thread_silent_seconds",
            "Since it last showed itself.",
            [(name, thread.silent) for name, thread in threads],
        ),
        _counter(
            "thread_restarts",
            "Restarts after an exception.",
            [(name, thread.restarts) for name, thread in threads],
        ),
    ]


def _board(health: Health) -> list[Metric]:
    bits = health.throttled
    on, had = _conditions(bits), _conditions(bits and bits >> 16)
    return [
        _value("board_temperature_celsius", "Its hottest sensor.", health.temperature),
        _gauge("board_condition", "Power and throttling now.", on),
        _gauge("board_condition_since_boot", "The same, ever since boot.", had),
    ]


def _conditions(bits: int | None) -> list[tuple[Labels, float]]:
    if bits is None:
        return []
    return [({"is": name}, bits >> bit & 1) for bit, name in CONDITIONS.items()]


def _gauge(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return Metric(f"gruard_{name}", "gauge", text, tuple(samples))


def _counter(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return Metric(f"gruard_{name}_total", "counter", text, tuple(samples))


def _value(name: str, text: str, value: float | None) -> Metric:
    return _gauge(name, text, [] if value is None else [({}, value)])


def _each(label: str, counts: Mapping[str, int]) -> list[tuple[Labels, float]]:
    return [({label: name}, count) for name, count in counts.items()]


def _family(metric: Metric) -> str:
    head = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    return head + "".join(
        f"{metric.name}{_labels(labels)} {_number(value)}\n" for labels, value in metric.samples
    )


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""
