"""Fault descriptions: what they do to a sample, and what is said about a wrong one."""

import numpy as np
import pytest

from edge_runtime.errors import GruardError
from edge_runtime.supervision.injection import Injections, parse_injections

CHANNELS = ("temp", "flow@in")


def spoilt(injections: Injections, rows: int = 8) -> list[list[float]]:
    return [injections.spoil(i, np.array([i, 10 + i], np.float32)).tolist() for i in range(rows)]


def test_nothing_to_inject_leaves_the_very_values() -> None:
    values = np.zeros(2, np.float32)
    injections = parse_injections("", CHANNELS)
    assert injections.spoil(0, values) is values
    assert injections.process_fault(0) is None and injections.starting(0) == []


def test_process_faults_hit_one_sample() -> None:
    injections = parse_injections("hang@12, crash@24", CHANNELS)
    assert [injections.process_fault(i) for i in (11, 12, 24)] == [None, "hang", "crash"]


def test_nan() -> None:
    rows = np.array(spoilt(parse_injections("nan:temp@2+3", CHANNELS)))
    assert np.isnan(rows[:, 0]).tolist() == [False] * 2 + [True] * 3 + [False] * 3
    assert rows[:, 1].tolist() == list(range(10, 18))


def test_level_in_raw_units() -> None:
    rows = spoilt(parse_injections("level:flow@in@2+2*-2.5", CHANNELS), 5)
    assert [row[1] for row in rows] == [10, 11, 9.5, 10.5, 14]


@pytest.mark.filterwarnings("error")
def test_a_level_beyond_float32_is_infinite_and_no_warning() -> None:
    rows = spoilt(parse_injections("level:temp@3+2*1e90,level:flow@in@3+2*-1e90", CHANNELS), 5)
    assert rows[3:] == [[np.inf, -np.inf]] * 2


def test_stuck_holds_its_first_reading() -> None:
    rows = spoilt(parse_injections("stuck:temp@3+3", CHANNELS))
    assert [row[0] for row in rows] == [0, 1, 2, 3, 3, 3, 6, 7]


def test_faults_add_up_and_the_reading_stays() -> None:
    values = np.array([1, 2], np.float32)
    injections = parse_injections("level:temp@0+1*1,level:temp@0+1*2e1", CHANNELS)
    assert injections.spoil(0, values).tolist() == [22, 2] and values.tolist() == [1, 2]


def test_each_fault_is_announced_once_as_written() -> None:
    injections = parse_injections("nan:temp@3+2,level:temp@3+9*1", CHANNELS)
    assert injections.starting(3) == ["nan:temp@3+2", "level:temp@3+9*1"]
    assert injections.starting(4) == []


@pytest.mark.parametrize(
    "piece",
    ["hang", "hang@", "hang@-1", "crash@1+2", "burn@3", "nan:temp@3", "nan:temp@3+2*1",
     "level:temp@3+2", "level:temp@3+2*x", "stuck:@3+2", "hang@٣"],
)  # fmt: skip
def test_an_unreadable_piece_is_named_with_the_forms(piece: str) -> None:
    with pytest.raises(GruardError) as caught:
        parse_injections(f"crash@1,{piece}", CHANNELS)
    assert f"'{piece}'" in str(caught.value) and "hang@INDEX" in str(caught.value)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_an_unknown_channel_is_named_with_the_known_ones() -> None:
    with pytest.raises(GruardError, match=r"'nan:Temp@3\+2'.*temp, flow@in"):
        parse_injections("nan:Temp@3+2", CHANNELS)
