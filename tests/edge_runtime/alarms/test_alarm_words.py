"""Alarms in words: every language says everything, and says it of any alarm."""

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_snapshot import alarms

from edge_runtime.alarm import Alarm, BlamedReading
from edge_runtime.diagnosis import KINDS
from edge_runtime.words import LANGUAGES, SENTENCES, alarm_line, alarm_text, language_of

pytestmark = pytest.mark.usefixtures("utc")
BLAMED = tuple(BlamedReading(name) for name in ("vibration", "current"))
ALARM = Alarm("Pump 3", 464, 475, 9.28, 69.28, 1764597730.0, BLAMED, "machine", 0.93, False, True)
languages = st.sampled_from(LANGUAGES)


def placeholders(sentence: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(sentence) if name)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_sentence_with_its_placeholders(language: str) -> None:
    told, english = SENTENCES[language], SENTENCES["en"]
    assert told.keys() == english.keys()
    for name, sentence in told.items():
        assert sentence.strip() and placeholders(sentence) == placeholders(english[name]), name


def test_every_kind_of_fault_has_a_sentence() -> None:
    kinds = {name.removeprefix("kind ") for name in SENTENCES["en"] if name.startswith("kind ")}
    assert kinds == set(KINDS)


def test_an_alarm_in_each_language() -> None:
    assert alarm_text(ALARM, "en") == (
        "Pump 3: vibration and current unlike healthy since 14:02:10 (machine fault, 0.93); "
        "model trusted"
    )
    assert alarm_text(replace(ALARM, over=True), "de") == (
        "Pump 3: vibration und current von 14:02:10 bis 14:03:10 anders als im gesunden Zustand "
        "(Fehler der Maschine, 0.93); vorbei; dem Modell ist zu trauen"
    )
    assert alarm_text(replace(ALARM, valid=False, muted=True), "zh") == (
        "Pump 3：vibration 和 current 自 14:02:10 起偏离健康状态（机器故障，0.93）；"
        "没有健康的模型，由后备检测器判断；已静音"
    )


@pytest.mark.parametrize(
    ("start", "words"), [(1764597730.0, "since 14:02:10"), (9.28, "since sample 464")]
)
def test_a_recording_tells_its_own_times(start: float, words: str) -> None:
    assert words in alarm_text(replace(ALARM, began=0.0, start=start, end=start), "en")


@given(alarm=alarms, language=languages)
def test_any_alarm_is_one_line_with_its_names(alarm: Alarm, language: str) -> None:
    text = alarm_line(alarm, language)
    assert "\n" not in text and all(name in text for name in (alarm.machine, *alarm.channels))
    assert (SENTENCES[language]["over"] in text) or not alarm.over


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "de_AT.UTF-8"}, "de"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
        ({"LANG": "de_DE.UTF-8", "LC_MESSAGES": "C"}, "en"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
    ],
)
def test_the_locale_decides(environment: dict[str, str], language: str) -> None:
    assert language_of(environment) == language
