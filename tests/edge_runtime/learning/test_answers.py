"""What relearn reads of the owner's words: every mute, not the last one only."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import owner
from edge_runtime.errors import GruardError
from edge_runtime.learning.answers import TimeSpan, read_answers
from edge_runtime.mute import MOST_PAST, PAST, WORD, Mute, PastMutes
from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.supervision.starts import MARKER

HOUR = 3600.0
NOW = 1_780_000_000.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / MARKER).write_text("{}")
    return tmp_path


def muted(folder: Path) -> list[TimeSpan]:
    return list(read_answers(folder, 0.0).muted)


def test_every_mute_is_known_until_it_ended(state: Path) -> None:
    owner.mute(state, 8 * HOUR, "cleaning", NOW)
    owner.unmute(state, NOW + HOUR)
    owner.mute(state, 2 * HOUR, "", NOW + 5 * HOUR)
    owner.mute(state, 3 * HOUR, "longer", NOW + 6 * HOUR)  # replaces it
    owner.mute(state, HOUR, "", NOW + 24 * HOUR)  # the one before was over
    assert muted(state) == [
        TimeSpan(NOW, NOW + HOUR),
        TimeSpan(NOW + 5 * HOUR, NOW + 6 * HOUR),
        TimeSpan(NOW + 6 * HOUR, NOW + 9 * HOUR),
        TimeSpan(NOW + 24 * HOUR, NOW + 25 * HOUR),
    ]
    assert read_answers(state, 60.0).muted[0] == TimeSpan(NOW - 60, NOW + HOUR - 60)


@pytest.mark.parametrize("file", [WORD, PAST])
def test_a_damaged_file_does_not_keep_the_owner_from_muting(state: Path, file: str) -> None:
    owner.mute(state, HOUR, "", NOW)
    owner.mute(state, HOUR, "", NOW + 2 * HOUR)
    content = (state / file).read_bytes()
    (state / file).write_bytes(content.replace(b"1", b"2", 1))
    with pytest.raises(GruardError):
        muted(state)
    owner.mute(state, HOUR, "", NOW + 4 * HOUR)
    assert muted(state)[-1] == TimeSpan(NOW + 4 * HOUR, NOW + 5 * HOUR)


def test_the_oldest_mutes_are_forgotten(state: Path) -> None:
    full = PastMutes(tuple(Mute(NOW + n, NOW + n + 1, "") for n in range(MOST_PAST)))
    write_sealed(state / PAST, full)
    owner.mute(state, HOUR, "", NOW + 1000)
    owner.unmute(state, NOW + 1001)
    past = read_sealed(state / PAST, PastMutes)
    assert past is not None and len(past.mutes) == MOST_PAST
    assert past.mutes[0] == full.mutes[1] and past.mutes[-1].started == NOW + 1000


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.floats(-HOUR, 9 * HOUR), st.booleans()), max_size=12))
def test_no_mute_is_known_beyond_its_end_whatever_the_clock_does(
    steps: list[tuple[float, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("state")
    (folder / MARKER).write_text("{}")
    now = NOW
    for step, on in steps:
        now += step
        if on:
            owner.mute(folder, 2 * HOUR, "", now)
        elif (folder / WORD).exists():
            try:
                owner.unmute(folder, now)
            except owner.NothingError:
                continue
    spans = muted(folder)
    assert len(spans) <= sum(on for _, on in steps)
    assert all(0 < span.end - span.start <= 2 * HOUR for span in spans)
