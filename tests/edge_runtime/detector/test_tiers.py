"""The tiers: every transition can be observed, and every phase ends."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_manifest import BOUNDS

from edge_runtime.bundle.manifest import Tiers
from edge_runtime.detector import tiers
from edge_runtime.detector.tiers import Observation, Phase, TierState, held_open, tier_of

CHANNELS = 5  # four that are watched and that the gate decides about, one exogenous
WATCHED = np.array([1, 1, 1, 1, 0], np.float32)
# So short that arbitrary observations reach every corner.
SHORT = Tiers(
    closed_limit=6,
    lost_limit=3,
    contradiction_limit=3,
    free_run_limit=4,
    resync_channel=2,
    resync_all=5,
    window=60,
    hour=90,
    warmup=4,
    frozen_limit=4,
    saturated_limit=0.5,
    agree=3,
    bridge=3,
)


def seen(
    closed: Iterable[int] = (),
    masked: Iterable[int] = (),
    tiny: Iterable[int] = (),
    huge: Iterable[int] = (),
    **more: object,
) -> Observation:
    """A calm sample but for the channels named."""
    mask, gate = np.ones(CHANNELS, np.float32), np.ones(CHANNELS, np.float32)
    innovation = np.ones(CHANNELS, np.float32)
    mask[list(masked)], gate[list(closed)] = 0, 0.1
    innovation[list(closed)] = 5
    innovation[list(tiny)], innovation[list(huge)] = 0.1, 8
    calm: dict[str, object] = {"saturated": 0.0, "moved": True, "input_moved": True}
    calm |= {"watched": WATCHED, "gated": WATCHED}
    return Observation(mask, gate, innovation, **(calm | more))  # type: ignore[arg-type]


CALM, ONE, HALF = seen(), seen(closed=[1]), seen(closed=[0, 1])
BLACKOUT = seen(masked=range(CHANNELS))
BROKEN, FROZEN = seen(saturated=0.21), seen(moved=False)


@dataclass(frozen=True)
class Moment:
    """The state in which a sample was answered, and whether the sample ended with a reset."""

    plan: TierState
    tier: int
    reset: bool


def run(
    observations: Iterable[Observation],
    bounds: Tiers = BOUNDS,
    state: TierState | None = None,
    verdicts: Iterable[bool] | None = None,
) -> tuple[list[Moment], TierState]:
    """Observe as `step` does; the state to start from is settled unless given."""
    state = tiers.initial_tiers(CHANNELS, 0) if state is None else state
    moments = []
    agreed = iter(verdicts) if verdicts is not None else None
    for observation in observations:
        plan = state
        state, reset = tiers.observe(state, observation, bounds)
        state = tiers.agree(state, next(agreed) if agreed else False, bounds)
        moments.append(Moment(plan, tier_of(plan), reset))
    return moments, state


def phases(moments: list[Moment]) -> list[tuple[Phase, int]]:
    """Phases in order with their lengths."""
    found: list[tuple[Phase, int]] = []
    for moment in moments:
        if found and found[-1][0] is moment.plan.phase:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((moment.plan.phase, 1))
    return found


def test_a_calm_machine_stays_with_the_gate() -> None:
    moments, _ = run([CALM] * 500)
    assert {(m.tier, m.reset, m.plan.phase) for m in moments} == {(1, False, Phase.GATE)}
    assert not any(held_open(m.plan).any() for m in moments)


def test_before_the_state_has_settled_the_fallback_answers() -> None:
    moments, _ = run([CALM] * 110, state=tiers.initial_tiers(CHANNELS, 100))
    assert [m.tier for m in moments] == [3] * 100 + [1] * 10


def test_a_channel_closed_for_its_limit_is_held_open_for_its_bound() -> None:
    moments, _ = run([ONE] * 48 + [CALM] * 20)
    forced = [held_open(m.plan).tolist() for m in moments]
    assert forced == [[0] * 5] * 48 + [[0, 1, 0, 0, 0]] * 8 + [[0] * 5] * 12
    assert [m.tier for m in moments] == [1] * 48 + [2] * 8 + [1] * 12


def test_one_sample_less_than_the_limit_changes_nothing() -> None:
    moments, _ = run([ONE] * 47 + [CALM] * 20)
    assert {m.tier for m in moments} == {1}


def test_being_closed_is_forgotten_twice_as_fast_as_it_is_counted() -> None:
    _, state = run([ONE] * 40 + [CALM] * 10)
    assert state.closed[1] == 20
    assert run([CALM] * 10, state=state)[1].closed[1] == 0


@pytest.mark.parametrize(
    "contradiction",
    [seen(closed=[2], tiny=[2]), seen(huge=[2])],
    ids=["closed on a tiny innovation", "open on a huge one"],
)
def test_a_gate_that_contradicts_the_evidence_is_held_open(contradiction: Observation) -> None:
    assert {m.tier for m in run([contradiction] * 7 + [CALM] * 9)[0]} == {1}
    moments, _ = run([contradiction] * 8 + [CALM] * 12)
    assert [m.tier for m in moments] == [1] * 8 + [2] * 8 + [1] * 4
    assert held_open(moments[8].plan).tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    "reasonable",
    [seen(closed=[2]), seen(tiny=[2]), seen(huge=[2], masked=[2]), seen(huge=[4])],
    ids=["closed on a large one", "open on a tiny one", "masked", "exogenous"],
)
def test_a_gate_that_fits_the_evidence_is_left_alone(reasonable: Observation) -> None:
    assert {m.tier for m in run([reasonable] * 40)[0]} == {1}


def test_half_the_channels_closed_is_a_free_run_then_a_resynchronisation() -> None:
    moments, state = run([HALF] * 16 + [CALM] * 60)
    assert phases(moments) == [
        (Phase.GATE, 16), (Phase.FREE_RUN, 16), (Phase.RESYNC, 24), (Phase.GATE, 20)
    ]  # fmt: skip
    assert [m.tier for m in moments] == [1] * 16 + [2] * 40 + [1] * 20
    for moment in moments:
        everything = moment.plan.phase is Phase.RESYNC
        assert held_open(moment.plan).tolist() == [float(everything)] * CHANNELS
    assert len(state.resyncs) == 1


def test_half_the_channels_closed_for_less_is_left_to_the_gate() -> None:
    assert {m.tier for m in run(([HALF] * 15 + [CALM]) * 2)[0]} == {1}


def test_exogenous_channels_count_for_nothing() -> None:
    odd = seen(closed=[0, 4], masked=[4, 3])
    assert {m.tier for m in run([odd] * 40)[0]} == {1}


MOSTLY = seen(masked=[0, 1, 2])


def counters(state: TierState) -> tuple[object, ...]:
    """Everything but how many samples there were."""
    rest = {k: v for k, v in vars(state).items() if k not in ("index", "gap")}
    return tuple(v.tolist() if isinstance(v, np.ndarray) else v for v in rest.values())


@pytest.mark.parametrize("missing", [MOSTLY, BLACKOUT], ids=["most", "all"])
@pytest.mark.parametrize(
    "before",
    [[ONE] * 30, [HALF] * 15, [HALF] * 20, [HALF] * 40, [seen(huge=[2])] * 10, [FROZEN] * 20],
    ids=["closed", "half closed", "free run", "re-synchronising", "held open", "frozen"],
)
def test_what_the_state_can_bridge_changes_no_counter(
    before: list[Observation], missing: Observation
) -> None:
    _, state = run(before)
    moments, after = run([missing] * BOUNDS.bridge, state=state)
    assert {m.tier for m in moments} == {tier_of(state)} == {tier_of(after)}
    assert counters(after) == counters(state)


def test_one_row_more_is_an_outage_and_blind_after_the_bound_of_its_free_run() -> None:
    moments, _ = run([MOSTLY] * 60 + [CALM] * 40)
    assert BOUNDS.bridge == 8
    assert [m.tier for m in moments[:26]] == [1] * 9 + [2] * 16 + [3]
    assert {m.tier for m in moments[26:61]} == {3}
    # The first reading ends the blindness; from the next sample on the gate is held open.
    assert phases(moments) == [(Phase.GATE, 9), (Phase.FREE_RUN, 52), (Phase.RESYNC, 24),
                               (Phase.GATE, 15)]  # fmt: skip
    assert {m.tier for m in moments[61:85]} == {2} and moments[-1].tier == 1


def test_the_first_reading_ends_the_free_run_of_an_outage() -> None:
    moments, _ = run([BLACKOUT] * 10 + [CALM] * 40)
    assert phases(moments) == [(Phase.GATE, 9), (Phase.FREE_RUN, 2), (Phase.RESYNC, 24),
                               (Phase.GATE, 15)]  # fmt: skip


def test_the_forecasts_are_not_believed_from_an_outage_on_until_it_has_ended() -> None:
    moments, state = run([CALM] * 5 + [BLACKOUT] * 10 + [CALM] * 40)
    settling = [tiers.is_settling(m.plan, 5 <= i < 15) for i, m in enumerate(moments)]
    assert settling == [False] * 14 + [True] * 26 + [False] * 15
    assert not tiers.is_settling(state, False)
    assert not any(tiers.is_settling(m.plan, False) for m in run([HALF] * 60)[0])


def test_the_forecast_of_the_first_row_after_a_gap_is_not_believed() -> None:
    moments, _ = run([CALM] * 3 + [BLACKOUT] * 2 + [CALM] * 3)
    settling = [tiers.is_settling(m.plan, 3 <= i < 5) for i, m in enumerate(moments)]
    assert settling == [False] * 5 + [True] + [False] * 2


def test_an_outage_is_no_failure_of_the_model() -> None:
    moments, state = run(([BLACKOUT] * 20 + [CALM] * 30) * 12)
    assert state.resyncs == () and not any(m.reset for m in moments)
    moments, state = run([HALF] * 16 + [CALM] * 16 + [BLACKOUT] * 20 + [CALM] * 60)
    assert len(state.resyncs) == 1  # the gate had failed before


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 5), st.booleans()), max_size=40))
def test_gaps_that_can_be_bridged_never_leave_tier_1(gaps: list[tuple[int, int, bool]]) -> None:
    rows = [
        row
        for missing, there, most in gaps
        for row in [MOSTLY if most else BLACKOUT] * missing + [CALM] * there
    ]
    moments, state = run(rows)
    assert {m.tier for m in moments} <= {1} and not any(m.reset for m in moments)
    assert counters(state) == counters(tiers.initial_tiers(CHANNELS, 0))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_random_loss_never_resets(share: float) -> None:
    lost = np.random.default_rng(1).random(4000) < share
    bounds = replace(BOUNDS, bridge=4)
    moments, state = run([BLACKOUT if row else CALM for row in lost], bounds)
    assert not any(m.reset for m in moments) and not state.distrusted and state.resyncs == ()
    assert np.mean([m.tier == 1 for m in moments]) >= (0.9 if share == 0.3 else 0.99)


def test_a_gap_is_neither_agreement_nor_disagreement() -> None:
    _, state = run([CALM] * 150, state=distrusted(), verdicts=[True] * 150)
    assert state.distrusted and state.agreed > 0
    for verdict in (True, False):
        _, after = run([MOSTLY] * 30, state=state, verdicts=[verdict] * 30)
        assert after.agreed in (0, state.agreed)
    _, after = run([MOSTLY] * BOUNDS.bridge, state=state, verdicts=[False] * BOUNDS.bridge)
    assert after.agreed == state.agreed


def test_the_warm_up_waits_for_readings() -> None:
    _, state = run([BLACKOUT] * 5 + [CALM] * 3, state=tiers.initial_tiers(CHANNELS, 100))
    assert state.warmup == 97


UNGATED = np.zeros(CHANNELS, np.float32)


@pytest.mark.parametrize(
    "verdict",
    [seen(closed=[0, 1, 2, 3]), seen(closed=[2], tiny=[2]), seen(huge=[0, 1, 2, 3])],
    ids=["all closed", "closed on a tiny innovation", "open on a huge one"],
)
def test_without_a_gate_nothing_is_read_into_its_verdicts(verdict: Observation) -> None:
    assert {m.tier for m in run([verdict] * 60)[0]} > {1}  # with a gate it would matter
    moments, state = run([replace(verdict, gated=UNGATED)] * 60)
    assert {(m.tier, m.reset, m.plan.phase) for m in moments} == {(1, False, Phase.GATE)}
    assert not state.closed.any() and not state.contradicted.any() and state.lost == 0


def test_without_a_gate_missing_readings_count_as_ever() -> None:
    for masked in (seen(masked=[0, 1, 2]), seen(masked=[0, 1]), seen(masked=[0, 1, 4]), BLACKOUT):
        script = [masked] * 60 + [CALM] * 40
        with_gate, _ = run(script)
        without, _ = run([replace(sample, gated=UNGATED) for sample in script])
        assert [m.tier for m in without] == [m.tier for m in with_gate]
        assert phases(without) == phases(with_gate)


def test_half_missing_is_not_most() -> None:
    assert {m.tier for m in run([seen(masked=[0, 1])] * 60)[0]} == {1}


def test_a_resynchronisation_without_readings_waits_and_is_marked() -> None:
    lost = [HALF] * 16 + [CALM] * 16
    moments, _ = run(lost + [CALM] * 10 + [BLACKOUT] * 50 + [CALM] * 30)
    # It begins anew once there is something to synchronise with.
    assert [m.tier for m in moments[32:]] == [2] * 19 + [3] * 42 + [2] * 24 + [1] * 5


def test_lost_again_after_two_resynchronisations_resets_and_then_distrusts() -> None:
    moments, state = run([HALF] * 400)
    resets = [i for i, moment in enumerate(moments) if moment.reset]
    cycle = 16 + 16 + 24
    assert resets[:2] == [2 * cycle + 15, 2 * (2 * cycle + 16) - 1]
    assert phases(moments[: resets[0] + 1]) == [
        (Phase.GATE, 16), (Phase.FREE_RUN, 16), (Phase.RESYNC, 24)
    ] * 2 + [(Phase.GATE, 16)]  # fmt: skip
    after_first = moments[resets[0] + 1 : resets[1]]
    assert [m.plan.warmup for m in after_first[:101]] == list(range(100, -1, -1))
    assert {m.tier for m in after_first[:100]} == {3}
    assert not moments[resets[1]].plan.distrusted
    assert all(m.plan.distrusted and m.tier == 3 for m in moments[resets[1] + 1 :])
    assert state.distrusted


def test_losses_that_are_far_apart_never_reset() -> None:
    moments, _ = run(([HALF] * 16 + [CALM] * 640) * 6)
    assert not any(m.reset for m in moments)
    assert sum(phase is Phase.FREE_RUN for phase, _ in phases(moments)) == 6


def test_a_saturated_state_is_distrusted_and_reset_at_once() -> None:
    moments, state = run([seen(saturated=0.2)] * 50)
    assert {m.tier for m in moments} == {1}
    moments, state = run([CALM, BROKEN])
    assert state.distrusted and state.warmup == 100 and tier_of(state) == 3
    assert [m.reset for m in moments] == [False, True]


def test_a_state_frozen_while_inputs_move_is_distrusted_and_reset() -> None:
    assert not run([FROZEN] * 31 + [CALM] + [FROZEN] * 31)[1].distrusted
    assert not run([seen(moved=False, input_moved=False)] * 100)[1].distrusted
    moments, state = run([FROZEN] * 32)
    assert state.distrusted and [m.reset for m in moments] == [False] * 31 + [True]


@pytest.mark.parametrize("before", [[HALF] * 20, [HALF] * 40, [ONE] * 50, [BLACKOUT] * 30])
def test_health_is_watched_in_every_phase(before: list[Observation]) -> None:
    _, state = run([*before, BROKEN])
    assert state.distrusted and tier_of(state) == 3


def distrusted() -> TierState:
    return run([BROKEN])[1]


def test_trust_returns_after_the_warm_up_and_enough_agreement() -> None:
    moments, state = run([CALM] * 250, state=distrusted(), verdicts=[True] * 250)
    # The sample that ends the warm-up is the first that may agree.
    assert [m.tier for m in moments] == [3] * 199 + [1] * 51
    assert len(state.returns) == 1


def test_one_disagreement_starts_the_count_again() -> None:
    verdicts = [True] * 180 + [False] + [True] * 120
    moments, _ = run([CALM] * 301, state=distrusted(), verdicts=verdicts)
    assert [m.tier for m in moments] == [3] * 281 + [1] * 20


def test_without_agreement_trust_never_returns() -> None:
    assert run([CALM] * 5000, state=distrusted(), verdicts=[False] * 5000)[1].distrusted


@pytest.mark.parametrize("broken", [BROKEN, FROZEN], ids=["saturated", "frozen"])
def test_trust_never_returns_to_a_state_that_is_still_broken(broken: Observation) -> None:
    moments, state = run([broken] * 5000, state=distrusted(), verdicts=[True] * 5000)
    assert {m.tier for m in moments} == {3} and state.returns == ()


def test_trust_returns_at_most_three_times_an_hour() -> None:
    # Broken again as soon as it is trusted: returns come as fast as they may.
    state, returned = distrusted(), []
    for _ in range(8000):
        before = state.distrusted
        state, _ = tiers.observe(state, CALM if before else BROKEN, BOUNDS)
        state = tiers.agree(state, True, BOUNDS)
        if before and not state.distrusted:
            returned.append(state.index)
    assert len(returned) >= 6
    for first, fourth in zip(returned, returned[3:], strict=False):
        assert fourth - first >= BOUNDS.hour


indices = st.sets(st.integers(0, CHANNELS - 1))
observations = st.builds(
    seen,
    closed=indices,
    masked=indices,
    tiny=indices,
    huge=indices,
    saturated=st.sampled_from([0.0, 0.0, 0.0, 0.6]),
    moved=st.booleans(),
    input_moved=st.booleans(),
)
verdict_patterns = st.lists(st.booleans(), min_size=1, max_size=8)
stretches = st.lists(
    st.tuples(observations | st.sampled_from([CALM, ONE, HALF, BLACKOUT]), st.integers(1, 12)),
    max_size=20,
)


@settings(max_examples=200)
@given(stretches, verdict_patterns)
def test_no_phase_exceeds_its_bound_whatever_is_observed(
    script: list[tuple[Observation, int]], pattern: list[bool]
) -> None:
    samples = [observation for observation, count in script for _ in range(count)]
    start = tiers.initial_tiers(CHANNELS, SHORT.warmup)
    moments, last = run(samples, SHORT, start, itertools.cycle(pattern))
    free = forced = sync = missing = 0
    for moment, sample in zip(moments, samples, strict=True):
        plan, vouched = moment.plan, moment.tier < 3
        missing = missing + 1 if (1 - sample.mask[:4]).sum() > 2 else 0
        if not 0 < missing <= SHORT.bridge:
            free = free + 1 if plan.phase is Phase.FREE_RUN and vouched else 0
            sync = sync + 1 if plan.phase is Phase.RESYNC and vouched else 0
        assert free <= SHORT.free_run_limit and sync <= SHORT.resync_all
        # Nobody vouches for long for what the model only dreams up.
        assert not vouched or missing <= SHORT.bridge + 1 + SHORT.free_run_limit
        forced = plan.forced.max()
        assert forced <= SHORT.resync_channel and plan.warmup <= SHORT.warmup
        assert plan.closed.max() < SHORT.closed_limit and plan.lost < SHORT.lost_limit
        assert plan.contradicted.max() < SHORT.contradiction_limit
        assert plan.frozen < SHORT.frozen_limit
        assert (moment.tier == 3) == (plan.distrusted or plan.blind or plan.warmup > 0)
        assert not (plan.distrusted and vouched)
    assert last.index == len(samples)
    assert len(last.returns) <= tiers.RETURNS_PER_HOUR


@given(stretches, verdict_patterns)
def test_calm_always_leads_back_to_the_gate(
    script: list[tuple[Observation, int]], pattern: list[bool]
) -> None:
    samples = [observation for observation, count in script for _ in range(count)]
    _, state = run(samples, SHORT, verdicts=itertools.cycle(pattern))
    enough = SHORT.hour + SHORT.warmup + SHORT.free_run_limit + SHORT.resync_all + SHORT.agree
    _, state = run([CALM] * enough, SHORT, state, [True] * enough)
    assert tier_of(state) == 1


@given(st.lists(observations, min_size=1, max_size=20))
def test_the_state_is_a_value(samples: list[Observation]) -> None:
    state = tiers.initial_tiers(CHANNELS, 0)
    for sample in samples:
        kept = [vector.copy() for vector in (state.closed, state.contradicted, state.forced)]
        first, _ = tiers.observe(state, sample, SHORT)
        second, _ = tiers.observe(state, sample, SHORT)
        for old, now in zip(kept, (state.closed, state.contradicted, state.forced), strict=True):
            np.testing.assert_array_equal(old, now)
        zero = np.zeros(CHANNELS, np.float32)
        scalars = [replace(s, closed=zero, contradicted=zero, forced=zero) for s in (first, second)]
        assert repr(scalars[0]) == repr(scalars[1])
        np.testing.assert_array_equal(first.closed, second.closed)
        state = first
