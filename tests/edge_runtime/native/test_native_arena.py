"""The planner of the arena: what lives at the same time lies apart, and little room is wasted."""

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.native.program import ALIGNMENT, TensorLifetime, place

LIVES = st.dictionaries(
    st.integers(0, 60),
    st.builds(
        lambda size, first, length: TensorLifetime(size, first, first + length),
        st.integers(1, 300), st.integers(0, 20), st.integers(0, 20),
    ),
    max_size=40,
)  # fmt: skip


@given(LIVES)
def test_what_lives_at_the_same_time_lies_apart(lives: dict[int, TensorLifetime]) -> None:
    placed, size = place(lives)
    assert set(placed) == set(lives)
    spans = [(life, placed[key], placed[key] + life.size) for key, life in lives.items()]
    for number, (one, start, end) in enumerate(spans):
        assert start >= 0 and end <= size and start % ALIGNMENT == 0
        for other, other_start, other_end in spans[:number]:
            together = one.first <= other.last and other.first <= one.last
            assert not together or end <= other_start or other_end <= start


@given(LIVES)
def test_the_arena_is_no_larger_than_all_values_side_by_side(
    lives: dict[int, TensorLifetime],
) -> None:
    aligned = sum(-(-life.size // ALIGNMENT) * ALIGNMENT for life in lives.values())
    assert place(lives)[1] <= aligned


def test_a_place_is_used_again_once_its_value_is_dead() -> None:
    placed, size = place(
        {0: TensorLifetime(64, 0, 1), 1: TensorLifetime(64, 1, 2), 2: TensorLifetime(64, 2, 3)}
    )
    assert placed[0] == placed[2] != placed[1]
    assert size == 128


def test_a_value_and_the_operand_it_is_made_of_lie_apart() -> None:
    placed, _ = place(
        {0: TensorLifetime(16, 0, 3), 1: TensorLifetime(16, 3, 5)}
    )  # both at work in operator 3
    assert placed[0] != placed[1]
