"""Records and alarms in words, in the languages of `SENTENCES`."""

from __future__ import annotations

import time
from collections.abc import Mapping

from edge_runtime.alarm import Alarm, is_date

ENGLISH = "en"
_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set decides, as in POSIX
SENTENCES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "machine": "{name}: ",
        "alarm": "{channels} unlike healthy since {start}",
        "alarm over": "{channels} unlike healthy from {start} to {end}",
        "all channels": "readings",
        "cause": " ({kind}, {probability})",
        "comma": ", ",
        "and": "{first} and {last}",
        "semicolon": "; ",
        "over": "over",
        "trusted": "model trusted",
        "not trusted": "no healthy model, judged by the fallback",
        "recurring": "recurring",
        "muted": "muted",
        "ALARM": "ALARM {text}",
        "no alarm": "no alarm",
        "sample": "sample {index}",
        "expected": "expected",
        "kind spike": "sensor spikes",
        "kind noise": "sensor noise",
        "kind stuck": "sensor stuck",
        "kind level": "sensor offset",
        "kind drift": "sensor drift",
        "kind decorrelation": "sensor unlike the others",
        "kind dropout": "sensor dropout",
        "kind machine": "machine fault",
    },
    "de": {
        "machine": "{name}: ",
        "alarm": "{channels} seit {start} anders als im gesunden Zustand",
        "alarm over": "{channels} von {start} bis {end} anders als im gesunden Zustand",
        "all channels": "Messwerte",
        "cause": " ({kind}, {probability})",
        "comma": ", ",
        "and": "{first} und {last}",
        "semicolon": "; ",
        "over": "vorbei",
        "trusted": "dem Modell ist zu trauen",
        "not trusted": "kein gesundes Modell, es urteilt der Ersatz",
        "recurring": "wiederkehrend",
        "muted": "stummgeschaltet",
        "ALARM": "ALARM {text}",
        "no alarm": "kein Alarm",
        "sample": "Messung {index}",
        "expected": "erwartet",
        "kind spike": "Sensor springt",
        "kind noise": "Sensor rauscht",
        "kind stuck": "Sensor steht",
        "kind level": "Sensor ist verschoben",
        "kind drift": "Sensor driftet",
        "kind decorrelation": "Sensor folgt den anderen nicht",
        "kind dropout": "Sensor fällt aus",
        "kind machine": "Fehler der Maschine",
    },
    "zh": {
        "machine": "{name}：",
        "alarm": "{channels} 自 {start} 起偏离健康状态",
        "alarm over": "{channels} 从 {start} 到 {end} 偏离健康状态",
        "all channels": "读数",
        "cause": "（{kind}，{probability}）",
        "comma": "、",
        "and": "{first} 和 {last}",
        "semicolon": "；",
        "over": "已结束",
        "trusted": "模型可信",
        "not trusted": "没有健康的模型，由后备检测器判断",
        "recurring": "反复出现",
        "muted": "已静音",
        "ALARM": "警报 {text}",
        "no alarm": "无警报",
        "sample": "样本 {index}",
        "expected": "预期",
        "kind spike": "传感器尖峰",
        "kind noise": "传感器噪声",
        "kind stuck": "传感器卡住",
        "kind level": "传感器偏移",
        "kind drift": "传感器漂移",
        "kind decorrelation": "传感器与其他传感器不一致",
        "kind dropout": "传感器中断",
        "kind machine": "机器故障",
    },
}
"""By language and name; the braces are filled in."""
LANGUAGES = tuple(SENTENCES)


def language_of(environment: Mapping[str, str]) -> str:
    """Return the language of an environment by its locale, English for any other one."""
    locale = next(filter(None, map(environment.get, _VARIABLES)), "")
    return locale[:2] if locale[:2] in LANGUAGES else ENGLISH


def alarm_text(alarm: Alarm, language: str) -> str:
    """Return an alarm as one sentence.

    `Pump 3: vibration and current unlike healthy since 14:02:10 (machine fault, 0.93); model
    trusted`. Times are local ones; those of a recording are as it gives them.
    """
    words = SENTENCES[language]
    name = words["machine"].format(name=alarm.machine) if alarm.machine else ""
    what = words["alarm over" if alarm.over else "alarm"].format(
        channels=_listed(alarm.channels, words) or words["all channels"],
        start=_moment(alarm, alarm.start, alarm.index, words),
        end=_moment(alarm, alarm.end, alarm.last, words),
    )
    states = {
        "over": alarm.over,
        "trusted": alarm.valid is True,
        "not trusted": alarm.valid is False,
        "recurring": alarm.recurring,
        "muted": alarm.muted,
    }
    facts = [words[each] for each, holds in states.items() if holds]
    return words["semicolon"].join([f"{name}{what}{_cause(alarm, words)}", *facts])


def alarm_line(alarm: Alarm, language: str) -> str:
    """Return `alarm_text`, with ALARM in front while the alarm is on."""
    text = alarm_text(alarm, language)
    return text if alarm.over else SENTENCES[language]["ALARM"].format(text=text)


def record_text(alarm: Alarm | None, language: str) -> str:
    """Return a record in words. alarm: the alarm that it belongs to, None without one."""
    return alarm_line(alarm, language) if alarm else SENTENCES[language]["no alarm"]


def _cause(alarm: Alarm, words: Mapping[str, str]) -> str:
    if alarm.kind is None or alarm.probability is None:
        return ""
    kind = words.get(f"kind {alarm.kind}", alarm.kind)
    return words["cause"].format(kind=kind, probability=f"{alarm.probability:.2f}")


def _listed(names: tuple[str, ...], words: Mapping[str, str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return words["and"].format(first=words["comma"].join(names[:-1]), last=names[-1])


def clock_text(alarm: Alarm, at: float) -> str:
    """Return a time of an alarm's records, in seconds, as `14:02:10`; empty if it is no date."""
    local = alarm.began + at - alarm.start
    if is_date(alarm.began) and is_date(local):
        return time.strftime("%H:%M:%S", time.localtime(local))
    return time.strftime("%H:%M:%S", time.gmtime(at)) if is_date(at) else ""


def _moment(alarm: Alarm, at: float, index: int, words: Mapping[str, str]) -> str:
    return clock_text(alarm, at) or words["sample"].format(index=index)
