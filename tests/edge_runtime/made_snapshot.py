"""Snapshots for tests: a telling one to change with `replace`, and any at all."""

from dataclasses import replace

from hypothesis import strategies as st

from edge_runtime.alarm import Alarm, BlamedReading
from edge_runtime.detector.lasting_change import Finding
from edge_runtime.mute import Mute
from edge_runtime.plain import UNPRINTABLE
from edge_runtime.status.snapshot import (
    SCHEMA,
    Answer,
    BoardHealth,
    ChannelStatus,
    Counts,
    Input,
    LearningStatus,
    ModelStatus,
    ProcessStatus,
    Snapshot,
)
from edge_runtime.threads import ThreadState

TOLD = 1000.0  # monotonic
COUNTS = Counts(
    records=4200,
    tiers={"1": 3900, "2": 100, "3": 200},
    transitions={"3→1": 2, "1→2": 1, "2→1": 1, "1→3": 1},
    flags={"WARMUP": 150, "FALLBACK": 200, "IMPUTED": 77},
    alarms=3,
    recurring=1,
    kinds={"level": 2, "machine": 1},
    restarts=1,
    dropped=0,
    skipped=0,
    bad_cells=5,
    bad_rows=1,
    outages=0,
    timing={"duplicate": 4},
    latency_median_ms=2.345,
    latency_max_ms=51.7,
    started_after=None,
)
CALM = Answer(
    4199, 83.98, 1, (), True, 4.5, 16.8, False, (), None, None, None
)  # fmt: skip
ALARM = replace(
    CALM, flags=("IMPUTED",), score=40.25, alarm=True, blamed=("flow", "heat"), kind="level",
    probability=0.874, sensor=True,
)  # fmt: skip
GOES_ON = Alarm(
    "pump", 4190, 4199, 83.8, 83.98, 1.7e9,
    (BlamedReading("flow", 7.25, 1.0, 3.5), BlamedReading("heat")),
    "level", 0.874, True, True,
)  # fmt: skip
FALLBACK = replace(
    CALM, tier=3, flags=("FALLBACK",), valid=False, score=0.5, threshold=1.0
)  # fmt: skip
GOOD = ChannelStatus("speed", False, False, False, 0, 0)
CHANNELS = (
    GOOD,
    ChannelStatus("flow", False, True, True, 0, 77),
    ChannelStatus("heat", True, True, True, 21, 21),
)
SNAPSHOT = Snapshot(
    SCHEMA,
    ProcessStatus(812, 99, 1.7e9, 11_530.0, TOLD, 10.0, False),
    ModelStatus("pump", 3, "55f037e9877e", "tflite-builtin", "serving", "", 1.7e9 + 3.0),
    Input(None, None),
    CALM,
    None,
    None,
    None,
    None,
    COUNTS,
    (GOOD, replace(GOOD, name="flow", imputed_records=77), replace(GOOD, name="heat")),
    tuple(0.1 + (n % 5) / 10 for n in range(40)),
    50.04,
    None,
    (
        ThreadState("status file", True, False, False, 0, 0.5, None),
        ThreadState("journal", True, False, False, 0, 1.25, None),
    ),
)
ALARMING = replace(
    SNAPSHOT,
    answer=ALARM,
    alarm=GOES_ON,
    channels=CHANNELS,
    trail=(*SNAPSHOT.trail[:30], None, None, 0.4, 0.9, 1.2, 1.9, 2.4, 2.4),
    health=BoardHealth(54.27, 0x50005),
)

_float = st.floats(-3e38, 3e38)
_count = st.integers(0, 10**12)


def _text(max_size: int = 20) -> st.SearchStrategy[str]:
    """What a bundle lets through: names without control characters."""
    return st.text(st.characters(codec="utf-8"), max_size=max_size).map(
        lambda text: UNPRINTABLE.sub("", text)
    )


_counts = st.dictionaries(_text(max_size=8), _count, max_size=4)
_names = st.lists(_text(max_size=12), max_size=4).map(tuple)


def _maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


alarms = st.builds(
    Alarm,
    _text(),
    _count,
    _count,
    _float,
    _float,
    _float,
    st.lists(
        st.builds(BlamedReading, _text(), _maybe(_float), _maybe(_float), _maybe(_float)),
        max_size=3,
    ).map(tuple),
    _maybe(_text()),
    _maybe(_float),
    _maybe(st.booleans()),
    _maybe(st.booleans()),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
snapshots = st.builds(
    Snapshot,
    st.just(SCHEMA),
    st.builds(
        ProcessStatus,
        _count,
        _maybe(_count),
        _float,
        st.floats(0, 1e9),
        _float,
        _float,
        st.booleans(),
    ),
    st.builds(ModelStatus, _text(), _count, _text(), _text(), _text(), _text(), _maybe(_float)),
    st.builds(Input, _maybe(_float), _maybe(_text())),
    _maybe(
        st.builds(
            Answer,
            _count,
            _maybe(_float),
            st.integers(0, 9),
            _names,
            st.booleans(),
            _maybe(_float),
            _maybe(_float),
            st.booleans(),
            _names,
            _maybe(_text()),
            _maybe(_float),
            _maybe(st.booleans()),
        )
    ),
    _maybe(alarms),
    _maybe(st.builds(Finding, _float, _names, _count, _maybe(_float), _text())),
    _maybe(st.builds(Mute, _float, _float, _text())),
    _maybe(
        st.builds(
            LearningStatus,
            st.booleans(),
            _count,
            _maybe(_count),
            _maybe(_float),
            st.booleans(),
            _text(),
            _maybe(_float),
            _maybe(_float),
        )
    ),
    st.builds(
        Counts,
        _count,
        _counts,
        _counts,
        _counts,
        _count,
        _count,
        _counts,
        _count,
        _count,
        _count,
        _count,
        _count,
        _count,
        _counts,
        _maybe(_float),
        _maybe(_float),
        _maybe(_text()),
    ),
    st.lists(
        st.builds(
            ChannelStatus, _text(), st.booleans(), st.booleans(), st.booleans(), _count, _count
        ),
        max_size=6,
    ).map(tuple),
    st.lists(_maybe(_float), max_size=50).map(tuple),
    _maybe(_float),
    _maybe(st.builds(BoardHealth, _maybe(_float), _maybe(_count))),
    st.lists(
        st.builds(
            ThreadState,
            _text(),
            st.booleans(),
            st.booleans(),
            st.booleans(),
            _count,
            st.floats(0, 1e9),
            _maybe(_text()),
        ),
        max_size=4,
    ).map(tuple),
)
