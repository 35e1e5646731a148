"""The page of a run: headline, findings, picture, alarms, and which tier answered when."""

import base64
import html
import math
from collections.abc import Iterable, Sequence

from convert.timeline.run_facts import AlarmStretch, Facts, RunRecording

ROWS = 200  # of a table; the others are only counted
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 100rem; margin: 2rem auto; padding: 0 1rem;
       color: #24323d; background: #fff }
.lead { font-size: 1.2rem } img { width: 100% } h2 { margin-top: 2rem }
ul { max-width: 60rem } .fail { color: #b3261e; font-weight: 600 }
table { border-collapse: collapse } th, td { padding: .2rem .9rem; text-align: left;
       border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
"""


def headline(watch: RunRecording, facts: Facts) -> str:
    """Say in one line what happened."""
    length = f" ({_length(watch, 0, facts.samples)})" if watch.seconds is not None else ""
    parts = [f"{facts.samples:,} samples{length} watched"]
    parts.append("one record for each" if facts.one_record_each else "NOT one record for each")
    recurring = sum(alarm.recurring for alarm in facts.alarms)
    of_them = f" ({recurring} recurring)" if recurring else ""
    parts.append(_count(len(facts.alarms), "alarm") + of_them)
    if facts.events:
        found = sum(event.delay is not None for event in facts.events)
        parts.append(f"{found} of {_count(len(facts.events), 'anomalous stretch')} found")
        if facts.median_delay is not None:
            parts.append(f"after {_delay(watch, facts.median_delay)} in the median")
    if facts.false_alarms is not None:
        parts.append(_count(facts.false_alarms, "false alarm"))
    return " · ".join(parts)


def page(watch: RunRecording, facts: Facts, sentence: str, picture: bytes) -> str:
    """Return self-contained HTML; `picture` is a PNG."""
    title = html.escape(watch.name)
    image = base64.b64encode(picture).decode()
    items = "".join(f"<li>{item}</li>" for item in _findings(watch, facts))
    clock = "sample" if watch.seconds is None else "sample and seconds since the first one"
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>gruard: {title}</title>
<style>{STYLE}</style>
<h1>{title}</h1>
<p class="lead">{html.escape(sentence)}</p>
<ul>{items}</ul>
<img alt="channels, score against threshold, alarms and tiers over time"
 src="data:image/png;base64,{image}">
<h2>Alarms</h2>
{_alarm_table(watch, facts.alarms)}
<h2>Which tier answered</h2>
{_change_table(watch, facts)}
<p>Moments are given as {clock}.</p>
</html>
"""


def _findings(watch: RunRecording, facts: Facts) -> list[str]:
    """Return the findings as HTML sentences."""
    items = [_proof(facts)]
    names = {0: "no record", 1: "tier 1 (gate)", 2: "tier 2 (recurrent unit alone)"}
    names[3] = "tier 3 (fallback, gaps included)"
    shares = ", ".join(f"{names[tier]} {share:.2%}" for tier, share in facts.tiers.items())
    warmup = f"; of all records {facts.warmup:.2%} are warm-up" if facts.warmup else ""
    items.append(f"Share of records per tier: {shares}{warmup}.")
    start, stop = facts.without_model
    if stop > start:
        length = _length(watch, start, stop)
        items.append(
            f"Longest stretch without a settled model: {length}, from {_at(watch, start)}."
        )
    else:
        items.append("Every record has a settled model behind it.")
    if facts.events is None:
        items.append("The recording has no labels: right and wrong alarms cannot be told apart.")
    else:
        items += _judgement(watch, facts)
    return items


def _proof(facts: Facts) -> str:
    if facts.one_record_each:
        return f"One record per sample: <b>yes</b> ({facts.samples:,} of {facts.samples:,})."
    faults = [f"missing: {_few(facts.missing)}"] if facts.missing else []
    faults += [f"more than one: {_few(facts.doubled)}"] if facts.doubled else []
    return f'One record per sample: <span class="fail">no</span>; {"; ".join(faults)}.'


def _judgement(watch: RunRecording, facts: Facts) -> list[str]:
    """Return recall and false alarms, with a caution."""
    events, wrong = facts.events or (), facts.false_alarms or 0
    found = sum(event.delay is not None for event in events)
    recall = (
        f"{found} of {len(events)} ({found / len(events):.0%})" if events else "nothing to find"
    )
    items = [f"Event recall (labelled stretches with the alarm on in them): {recall}."]
    missed = [event for event in events if event.delay is None]
    if missed:
        items.append(f"Missed: {', '.join(_at(watch, event.start) for event in missed[:ROWS])}.")
    if facts.alarmed_normal is not None:
        normal = facts.samples - sum(event.stop - event.start for event in events)
        hours = (watch.period or 0.0) * normal / 3600
        rate = f"{1e4 * wrong / normal:.3g} per 10,000 samples"
        rate = f"{wrong / hours:.3g} per hour" if hours else rate
        items.append(
            f"False alarms (touching no labelled stretch): {wrong}, that is {rate} of normal "
            f"operation; the alarm was on in {facts.alarmed_normal:.2%} of the normal samples."
        )
    items.append("<b>These figures are for this recording only</b>; others may give other figures.")
    return items


def _alarm_table(watch: RunRecording, alarms: Sequence[AlarmStretch]) -> str:
    where = {None: "no labels", True: "yes", False: "no"}
    rows = (
        (
            _at(watch, alarm.start),
            _at(watch, alarm.stop - 1),
            _length(watch, alarm.start, alarm.stop),
            ", ".join(alarm.blamed) or "none named",
            alarm.kind or "–",
            "–" if math.isnan(alarm.peak) else f"{alarm.peak:.2f}",
            ", ".join(str(tier) for tier in alarm.tiers),
            "yes" if alarm.recurring else "no",
            where[alarm.labelled],
        )
        for alarm in alarms[:ROWS]
    )
    peak = "peak score ÷ threshold"
    heads = ("start", "end", "duration", "blamed", "kind", peak, "tier", "recurring", "labelled")
    return _table(heads, rows, len(alarms))


def _change_table(watch: RunRecording, facts: Facts) -> str:
    rows = (
        (_at(watch, change.index), change.what, ", ".join(change.flags) or "–")
        for change in facts.changes[:ROWS]
    )
    return _table(("from", "what happened", "flags"), rows, len(facts.changes))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], total: int) -> str:
    if not total:
        return "<p>None.</p>"
    top = "".join(f"<th>{head}" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}' for c in row)}</tr>\n" for row in rows)
    more = f"<p>The first {ROWS} of {total:,}.</p>" if total > ROWS else ""
    return f"<table><tr>{top}</tr>\n{body}</table>{more}"


def _at(watch: RunRecording, index: int) -> str:
    seconds = "" if watch.seconds is None else f" ({watch.seconds[index]:,.2f} s)"
    return f"{index}{seconds}"


def _length(watch: RunRecording, start: int, stop: int) -> str:
    if watch.seconds is None:
        return _count(stop - start, "sample")
    return _seconds(watch.span(start, stop))


def _delay(watch: RunRecording, samples: float) -> str:
    return f"{samples:g} samples" if not watch.period else _seconds(samples * watch.period)


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    return f"{seconds:,.0f} s" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _count(number: int, thing: str) -> str:
    plural = "es" if thing.endswith("ch") else "s"
    return f"{number:,} {thing}{'' if number == 1 else plural}"


def _few(indices: Sequence[int]) -> str:
    more = f" and {len(indices) - 20:,} more" if len(indices) > 20 else ""
    return f"{', '.join(str(index) for index in indices[:20])}{more}"
