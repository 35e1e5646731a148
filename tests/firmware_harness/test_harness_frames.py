"""The host's frames: what goes in comes out, and no damage passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_harness.protocol import Message, frame, read_frame, stuffed, unstuffed

bodies = st.one_of(
    st.binary(max_size=600),
    st.integers(0, 600).map(bytes),
    st.integers(250, 520).map(lambda n: b"x" * n),
    st.integers(250, 520).map(lambda n: b"x" * n + b"\0"),
)


@given(bodies)
def test_stuffing_has_no_zero_and_is_undone(data: bytes) -> None:
    assert 0 not in stuffed(data)
    assert unstuffed(stuffed(data)) == data


@given(st.integers(0, 255), st.integers(0, 2**32 - 1), bodies)
def test_a_frame_carries_its_message(kind: int, sequence: int, body: bytes) -> None:
    data = frame(Message(kind, sequence, body))
    assert data.index(0) == len(data) - 1
    assert read_frame(data[:-1]) == Message(kind, sequence, body)


@given(bodies, st.data())
def test_a_flipped_bit_is_noticed(body: bytes, data: st.DataObject) -> None:
    whole = bytearray(frame(Message(2, 7, body))[:-1])
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError):
        read_frame(bytes(whole))


@given(st.binary(max_size=300))
def test_no_noise_is_taken_for_a_message(noise: bytes) -> None:
    with pytest.raises(ValueError):
        read_frame(noise)
