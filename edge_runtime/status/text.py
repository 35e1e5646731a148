"""A snapshot in words, for `gruard status` and `gruard top`."""

from collections.abc import Mapping

from edge_runtime.status.board import now_and_since_boot
from edge_runtime.status.snapshot import Channel, Counts, Health, Snapshot
from edge_runtime.status.verdict import (
    VOUCHERS,
    Verdict,
    finding_words,
    phase_words,
    since,
    since_words,
)
from edge_runtime.threads import failed_words

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TIERS = {str(tier): voucher for tier, voucher in VOUCHERS.items()}


def to_text(snapshot: Snapshot | None, verdict: Verdict) -> list[str]:
    """The verdict, and below it whatever is known."""
    if snapshot is None:
        return [verdict.text]
    channels = [f"{c.name} {channel_state(c)}" for c in snapshot.channels if troubled(c)]
    known = {"run": run_words(snapshot)} | facts(snapshot)
    known["channels"] = ", ".join(channels) or f"all {len(snapshot.channels)} as they should be"
    return [verdict.text, *(f"  {name:<12} {value}" for name, value in known.items())]


def facts(snapshot: Snapshot) -> dict[str, str]:
    """One line of words for each thing there is to know, but for the channels."""
    counts = snapshot.counts
    known = {
        "sample": sample_words(snapshot),
        **({"change": change_words(snapshot)} if snapshot.change else {}),
        "model": _model(snapshot),
        "records": f"{counts.records}{_rate(snapshot.rate)}{_latency(counts)}",
        "by tier": listed({_TIERS.get(tier, tier): n for tier, n in counts.tiers.items() if n}),
        "changes": listed(counts.transitions),
        "flags": listed(counts.flags),
        "alarms": f"{counts.alarms}{_recurring(counts)}{_kinds(counts.kinds)}",
        "input": _input(counts),
        "not written": _not_written(counts),
        "threads": failed_words(snapshot.threads) or f"all {len(snapshot.threads)} at work",
    }
    if snapshot.input.silent_since is not None or counts.outages:
        known["source"] = _source(snapshot)
    if counts.started_after is not None:
        known["last run"] = counts.started_after
    return known | ({"board": board_words(snapshot.health)} if snapshot.health else {})


def run_words(snapshot: Snapshot) -> str:
    """Which model runs where, and for how long already."""
    model, process = snapshot.model, snapshot.process
    kernel = f" on {model.kernel}" if model.kernel else ""
    name = f"{model.name} version {model.version}"
    return f"{name}, {model.hash}{kernel}, pid {process.pid}, for {duration(process.uptime)}"


def sample_words(snapshot: Snapshot) -> str:
    """The last record: its score, and who vouches for it."""
    answer = snapshot.answer
    if answer is None:
        return "none yet"
    score = "no score" if answer.score is None else f"score {answer.score:.4g}"
    limit = "" if answer.threshold is None else f", threshold {answer.threshold:.4g}"
    voucher = VOUCHERS.get(answer.tier, "nobody")
    return f"{answer.index}: {score}{limit}; tier {answer.tier}, {voucher}"


def change_words(snapshot: Snapshot) -> str:
    """The lasting change that was reported: since when, by which channels, and who said what."""
    change = snapshot.change
    if change is None:
        return "none"
    now = snapshot.process.started + snapshot.process.uptime
    words = finding_words(change, now).strip()
    if change.accepted is None:
        return words
    why = f" ({change.reason})" if change.reason else ""
    return f"{words}, accepted{since_words(change.accepted, now)}{why}"


def board_words(health: Health) -> str:
    """Temperature and power supply."""
    words = [] if health.temperature is None else [f"{health.temperature:.1f} °C"]
    if health.throttled is not None:
        on, had = now_and_since_boot(health.throttled)
        words += [f"{name} now" for name in on]
        words += [f"{name} since boot" for name in had if name not in on]
        words += [] if on or had else ["power supply good"]
    return ", ".join(words)


def troubled(channel: Channel) -> bool:
    """Whether there is anything to say about the channel now."""
    return channel.masked or channel.imputed or channel.blamed


def channel_state(channel: Channel) -> str:
    """What a channel is at the moment."""
    states = {
        "BLAMED": channel.blamed,
        "masked": channel.masked,
        "imputed": channel.imputed and not channel.masked,
    }
    return " ".join(name for name, on in states.items() if on) or "good"


def duration(seconds: float) -> str:
    """Two units at most: `3 d 2 h`, `12 min 5 s`."""
    left = int(seconds)
    for unit, name, smaller, small in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if left >= unit:
            return f"{left // unit} {name} {left % unit // smaller} {small}"
    return f"{left} s"


def listed(counts: Mapping[str, int]) -> str:
    """Names and numbers, the highest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered) or "-"


def _restarts(count: int) -> str:
    return "never restarted" if count == 0 else f"{count} restart{'s' if count > 1 else ''}"


def _model(snapshot: Snapshot) -> str:
    waiting = f", {snapshot.model.waiting}" if snapshot.model.waiting else ""
    return f"{phase_words(snapshot)}{waiting}, {_restarts(snapshot.counts.restarts)}"


def _source(snapshot: Snapshot) -> str:
    found = snapshot.input
    now = (
        "is read" if found.silent_since is None else f"silent{since(snapshot, found.silent_since)}"
    )
    away = f" ({found.away})" if found.away else ""
    count = snapshot.counts.outages
    return f"{now}{away}, {count} outage{'' if count == 1 else 's'}"


def _not_written(counts: Counts) -> str:
    skipped = f", {counts.skipped} journal entries skipped" if counts.skipped else ""
    return f"{counts.dropped}{skipped}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f", {rate:.3g} per second"


def _latency(counts: Counts) -> str:
    median, slowest = counts.latency_median_ms, counts.latency_max_ms
    if median is None or slowest is None:
        return ""
    return f", answers take {median:.2f} ms, at most {slowest:.2f}"


def _input(counts: Counts) -> str:
    unreadable = f"{counts.bad_cells} cells and {counts.bad_rows} rows unreadable"
    return f"{unreadable}, times {listed(counts.timing) if counts.timing else 'good'}"


def _recurring(counts: Counts) -> str:
    return f" ({counts.recurring} recurring)" if counts.recurring else ""


def _kinds(kinds: Mapping[str, int]) -> str:
    return f": {listed(kinds)}" if kinds else ""
