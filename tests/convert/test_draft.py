"""Each constant of the manifest against the same constant worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.bundle.flatbuffer import NO_GRAPH, GraphSummary, read_graph
from edge_runtime.bundle.manifest import PARTS, FallbackLimits, Manifest, Memory, Place
from edge_runtime.detector.score import score_constants
from edge_runtime.errors import UnfitError
from edge_runtime.learning import draft
from edge_runtime.learning.fallback_limits import LargestViews, with_fallback_limits
from edge_runtime.learning.rollout import Rollout, rescored
from edge_runtime.learning.run import Run
from edge_runtime.learning.score import SHRINKAGE
from edge_runtime.record import Flag

LEVEL, RESIDUAL, DISTANCE = (PARTS.index(part) for part in ("level", "residual", "distance"))
COUNT = len(PARTS)
ROWS = 200


@pytest.fixture(scope="module")
def graph(conversion) -> GraphSummary:  # type: ignore[no-untyped-def]
    return read_graph(conversion.model, "model")


@pytest.fixture(scope="module")
def neutral(tiny_run: Run, graph: GraphSummary) -> Manifest:
    return draft.draft_manifest(tiny_run, graph, 7)


def rollout(seed: int = 0, warmup: int = 0, **arrays: np.ndarray) -> Rollout:
    """A made-up rollout of three channels, all usable and settled unless said otherwise.

    The first `warmup` records say that they are warming up; whatever is smoothed is left out.
    """
    rng = np.random.default_rng(seed)
    made = {
        "value": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "forecast": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "mask": np.ones((ROWS, 3), np.float32),
        "gate": np.ones((ROWS, 3), np.float32),
        "trusted": np.zeros((ROWS, 3), np.float32),
        "doubt": np.zeros((ROWS, 3), np.float32),
        "hidden": np.zeros((ROWS, 8), np.float32),
        "raw_parts": rng.random((ROWS, COUNT)).astype(np.float32),
        "raw_terms": rng.random((ROWS, 3, 3)).astype(np.float32),
        "parts": np.zeros((0, 1, COUNT), np.float32),
        "terms": np.zeros((0, 3, 3), np.float32),
        "score": np.zeros(ROWS, np.float32),
        "settled": np.ones(ROWS, bool),
        "kept": np.ones(ROWS, bool),
        "saturated": np.zeros(ROWS, np.float32),
    }
    made |= arrays
    made = {"own": np.zeros_like(made["value"]), "ahead": np.zeros_like(made["value"]), **made}
    made["settling"] = np.arange(len(made["raw_parts"])) < warmup
    made["measured"] = np.ones(len(made["raw_parts"]), bool)
    rows = np.arange(len(made["raw_parts"]))
    flags = np.where(rows < warmup, Flag.WARMUP, 0).astype(np.uint16)
    tier, alarm = np.ones(len(rows), np.uint8), np.zeros(len(rows), bool)
    return Rollout(tier=tier, flags=flags, alarm=alarm, inputs={}, **made)


def test_the_draft_copies_the_run_and_the_graph(
    tiny_run: Run, graph: GraphSummary, neutral: Manifest
) -> None:
    assert (neutral.name, neutral.version, neutral.period) == ("tiny", 7, 1.0)
    assert neutral.channels == tiny_run.config.channels
    highway = np.array(neutral.forecast.highway, np.float32)
    np.testing.assert_array_equal(highway, tiny_run.weights["highway"])
    cross = np.array(neutral.forecast.cross, np.float32)
    np.testing.assert_array_equal(cross, tiny_run.weights["cross"])
    assert cross.shape == (3, 9)
    scale = np.array(neutral.forecast.innovation_scale, np.float32)
    np.testing.assert_array_equal(scale, tiny_run.weights["innovation_scale"])
    assert neutral.provenance.weights_sha256 == tiny_run.weights_sha256
    for side, described in ((graph.inputs, neutral.inputs), (graph.outputs, neutral.outputs)):
        assert set(described) == set(side)
        for name, tensor in described.items():
            actual = graph.tensors[side[name]]
            found = (tensor.shape, tensor.dtype, (tensor.scale,), (tensor.zero_point,))
            assert found == (actual.shape, "int8", actual.scales, actual.zero_points)


def test_a_draft_can_never_pass_for_a_finished_bundle(neutral: Manifest) -> None:
    assert not neutral.validation.passed and neutral.members == {}
    (threshold,) = neutral.thresholds.values()
    assert threshold.value == float("inf") and threshold.statement == "not calibrated"


def test_the_softplus_table_is_that_of_the_logit(graph: GraphSummary, neutral: Manifest) -> None:
    logit = graph.tensors[graph.outputs["logit"]]
    for code in (-128, -1, 0, 77, 127):
        value = logit.scales[0] * (code - logit.zero_points[0])
        assert neutral.tables.softplus[code + 128] == pytest.approx(
            np.log1p(np.exp(-value)), rel=1e-6
        )
    assert neutral.tables.log[0] == 0 and neutral.tables.log[128] == pytest.approx(np.log(1.5))


def test_a_channel_that_nothing_adds_to_has_no_cross_rows(tiny_run: Run) -> None:
    nothing = {**tiny_run.weights, "cross": np.zeros((0, 0), np.float32)}
    assert draft.forecast_constants(nothing).cross == ()


floats = hnp.arrays(
    np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


@given(floats)
def test_constants_are_the_shortest_numbers_that_give_the_same_float32(rows: np.ndarray) -> None:
    weights = {"highway": rows, "cross": rows.T, "innovation_scale": rows[0]}
    found = draft.forecast_constants(weights)
    np.testing.assert_array_equal(np.array(found.highway, np.float32), rows)
    np.testing.assert_array_equal(np.array(found.cross, np.float32), rows.T)
    np.testing.assert_array_equal(np.array(found.innovation_scale, np.float32), rows[0])
    for value in [v for row in found.highway for v in row]:
        fewer = [float(f"{value:.{digits}e}") for digits in range(len(repr(value)))]
        with np.errstate(over="ignore"):
            same = [number for number in fewer if np.float32(number) == np.float32(value)]
        assert same[0] == value  # no number of fewer digits gives this float32


def test_shortest_numbers_by_hand() -> None:
    weights = {"highway": np.float32([[0.1, 1 / 3]]), "cross": np.zeros((0, 0), np.float32)}
    weights["innovation_scale"] = np.float32([1e-5, 16777216])
    found = draft.forecast_constants(weights)
    assert (found.highway, found.innovation_scale) == (((0.1, 0.33333334),), (1e-5, 16777216.0))


def test_a_linear_draft_has_no_tensors_and_the_hosts_kernel(
    linear_run: Run, neutral: Manifest
) -> None:
    straight = draft.draft_manifest(linear_run, NO_GRAPH, 3)
    assert straight.linear and straight.inputs == straight.outputs == {}
    assert list(straight.thresholds) == ["host-float32"]
    assert list(neutral.thresholds) == ["tflite-builtin"] and not neutral.linear
    assert straight.score.weights == (1.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    (memory,) = straight.score.memories
    assert (memory.attack, memory.decay, memory.ceiling[0]) == draft.QUICK[0] == (0.2, 0.1, 1e30)
    assert set(straight.tables.softplus) == {0.0} and straight.tables.log == neutral.tables.log
    assert straight.tiers.warmup == 2 * len(linear_run.weights["highway"]) == 6


@pytest.mark.parametrize(
    ("period", "window", "hour"),
    [
        (1.0, 600, 3600),
        (None, 600, 3600),
        (0.1, 6000, 36000),
        (60.0, 600, 3600),
        (0.02, 30000, 180000),
    ],
)
def test_tier_bounds(period: float | None, window: int, hour: int) -> None:
    bounds = draft.tier_bounds(period, 77)
    assert (bounds.window, bounds.hour, bounds.warmup) == (window, hour, 77)
    assert (bounds.closed_limit, bounds.lost_limit, bounds.contradiction_limit) == (1000, 16, 8)
    assert (bounds.free_run_limit, bounds.resync_channel, bounds.resync_all) == (16, 8, 24)
    assert (bounds.frozen_limit, bounds.agree) == (32, 100)


@pytest.mark.parametrize(
    ("rows", "warmup"), [(5000, 100), (2000, 100), (1999, 99), (1000, 50), (200, 16)]
)
def test_a_short_recording_gets_a_shorter_warm_up(
    tiny_run: Run, graph: GraphSummary, rows: int, warmup: int
) -> None:
    pieces = [np.zeros((rows - 50, 3), np.float32), np.zeros((50, 3), np.float32)]
    run = replace(tiny_run, rows={**tiny_run.rows, "train": pieces})
    assert draft.draft_manifest(run, graph, 1).tiers.warmup == warmup


def test_the_gate_is_heard_once_labels_have_taught_it(tiny_run: Run, graph: GraphSummary) -> None:
    def heard(taught: int) -> float:
        run = replace(tiny_run, config=replace(tiny_run.config, taught=taught))
        return draft.draft_manifest(run, graph, 1).score.weights[PARTS.index("gate")]

    assert [heard(taught) for taught in (0, 1, 2, 3, 10)] == [0, 0, 0, 1, 1]


def test_one_channel_alone_counts_where_it_stands_for_more(
    tiny_run: Run, graph: GraphSummary
) -> None:
    def weights(*exogenous: bool) -> tuple[float, ...]:
        channels = zip(tiny_run.config.channels, exogenous, strict=True)
        made = tuple(replace(channel, exogenous=flag) for channel, flag in channels)
        run = replace(tiny_run, config=replace(tiny_run.config, channels=made))
        return draft.draft_manifest(run, graph, 1).score.weights

    assert weights(False, False, True) == (1, 0, 1, 1, 0, 0)
    assert weights(False, True, True) == (1, 0, 1, 1.5, 0, 0)


def watching(source: Manifest, *scored: int) -> Manifest:
    """`source` with other channels than the `scored` ones exogenous."""
    channels = tuple(replace(c, exogenous=i not in scored) for i, c in enumerate(source.channels))
    return replace(source, channels=channels)


def test_residual_scales_are_the_99_percent_quantiles_of_usable_errors(neutral: Manifest) -> None:
    errors = np.linspace(0, 1, 101, dtype=np.float32)[:, np.newaxis] * np.array([1.0, 2.0, 0.001])
    zeros = np.zeros_like(errors)
    mask = np.ones_like(errors)
    mask[50:, 1] = 0
    seen = rollout(value=errors, forecast=zeros, mask=mask, kept=np.ones(len(errors), bool))
    found = draft.with_score_shapes(neutral, [seen]).score
    # Without the first three rows, whose lags were never read: 0.99 of the way from 0.03 to 1;
    # from 0.06 to the last usable 0.98; never below 0.05.
    assert len(neutral.forecast.highway) == 3
    expected = (0.03 + 0.99 * 0.97, 0.06 + 0.99 * 0.92, 0.05)
    assert found.error_scale[0] == pytest.approx(expected, rel=1e-6)
    assert found.error_scale[1:] == ((1.0,) * 3,) * 2  # there are no such forecasts
    # 51 of the 98 readings of the second channel are unusable: one more is no surprise.
    common = (0.01 * 98 / 51) ** 0.5
    absent = [4 * expected[0], 4 * expected[1] * common, 4 * expected[2]]
    assert found.absent[0] == pytest.approx(absent, rel=1e-5)
    assert found.absent[1:] == ((0.0,) * 3,) * 2
    nothing = rollout(mask=np.zeros((ROWS, 3), np.float32))
    assert draft.with_score_shapes(neutral, [nothing]).score.error_scale[0] == (1.0, 1.0, 1.0)


def test_roots_whiten_errors_and_values(neutral: Manifest) -> None:
    rng = np.random.default_rng(1)
    mixing = np.array([[2.0, 0, 0], [1.0, 0.5, 0], [0.3, 0.2, 0.1]])
    errors = (rng.normal(size=(4000, 3)) @ mixing.T).astype(np.float32)
    values = rng.normal(size=(4000, 3)).astype(np.float32) * np.float32(3)
    all_, kept = np.ones((2000, 3)), np.ones(2000, bool)
    pieces = [
        rollout(value=values[k], forecast=values[k] - errors[k], mask=all_, kept=kept)
        for k in (slice(0, 2000), slice(2000, 4000))
    ]
    score = draft.with_score_shapes(watching(neutral, 0, 1, 2), pieces).score
    settled = np.arange(4000) % 2000 >= 3  # the first lags of each piece were never read
    for root, used in ((score.distance_root, errors), (score.level_root, values)):
        whiten, rows = np.array(root), used[settled].astype(float)
        moments = rows.T @ rows / len(rows) + SHRINKAGE * np.eye(3)
        np.testing.assert_allclose(whiten @ moments @ whiten.T, np.eye(3), atol=1e-4)
        assert not np.triu(whiten, 1).any()


def test_the_shapes_are_those_of_the_scored_channels_alone(neutral: Manifest) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4000, 3)).astype(np.float32)
    values[:, 2] = values[:, 0] + 0.1 * values[:, 2]  # an input that the first channel follows
    seen = rollout(
        value=values, forecast=0.5 * values, mask=np.ones((4000, 3)), kept=np.ones(4000, bool)
    )
    score = draft.with_score_shapes(watching(neutral, 0, 1), [seen]).score
    for root, used in ((score.distance_root, 0.5 * values), (score.level_root, values)):
        rows = used[3:, :2].astype(float)
        moments = rows.T @ rows / len(rows) + SHRINKAGE * np.eye(2)
        whiten = np.array(root)
        two = whiten[:2, :2]
        np.testing.assert_allclose(two @ moments @ two.T, np.eye(2), atol=1e-4)
        assert not whiten[:2, 2].any() and not whiten[2, :2].any()


def fallback_of(manifest: Manifest, seen: Rollout) -> FallbackLimits:
    """The limits of the fallback from one clean recording."""
    largest = LargestViews(manifest.channels)
    largest.add(seen)
    return with_fallback_limits(manifest, largest.found()).fallback


def test_the_fallback_has_limits_of_all_modes_together(neutral: Manifest) -> None:
    """It knows of no modes: a reading that is usual in one of them is usual."""
    modes = {0: (Place(-1.0, 1.0), Place(1.0, 1.0)), 1: (Place(0.0, 0.1), Place(50.0, 0.1)), 2: ()}
    channels = tuple(
        replace(c, center=0.0, scale=1.0, exogenous=i != 1, modes=modes[i])
        for i, c in enumerate(neutral.channels)
    )
    setting = np.where(np.arange(ROWS) % 20 < 10, -1.0, 1.0)
    value = np.stack([setting, np.full(ROWS, 2.0), np.zeros(ROWS)], axis=1).astype(np.float32)
    seen = rollout(value=value, mask=np.ones((ROWS, 3), np.float32))
    limits = fallback_of(replace(neutral, channels=channels), seen)
    # Two tenths above 50, with the margin.
    assert limits.range[1] == pytest.approx(1.5 * 50.2, rel=1e-4)
    assert limits.change[1] == pytest.approx(1.5 * 50, rel=1e-4)


def test_masked_errors_do_not_shape_the_covariance(neutral: Manifest) -> None:
    seen = rollout()
    mask = np.ones((ROWS, 3), np.float32)
    mask[:50] = 0
    wild = seen.value.copy()
    wild[:50] = 1e6
    calm = np.where(mask > 0, seen.value, 0)
    found = [
        draft.with_score_shapes(neutral, [replace(seen, value=v, mask=mask)]).score
        for v in (wild, calm)
    ]
    assert found[0] == found[1]


def test_rows_that_are_not_kept_shape_nothing(neutral: Manifest) -> None:
    seen, wild = rollout(), rollout().value.copy()
    wild[50:90] = 1e3
    kept = np.ones(ROWS, bool)
    kept[50:90] = False
    first, second = (
        draft.with_score_shapes(neutral, [replace(seen, value=value, kept=kept)])
        for value in (seen.value, wild)
    )
    assert first == second != draft.with_score_shapes(neutral, [seen])


def test_scores_are_centred_on_smoothed_settled_rows(neutral: Manifest) -> None:
    parts = np.array([[99] * COUNT, [1, 0, 2, 3, 0, 4], [3, 0, 2, 5, 0, 8]], np.float32)
    parts[0, LEVEL] = 4
    terms = np.stack([np.full((3, 3), i, np.float32) for i in (99, 2, 4)])
    terms[1:, 1] += 10
    terms[1:, 2, 0] += 20
    terms[0, 2] = [23, 3, 3]  # the level counts in the warm-up too, and is at its mean
    settled = np.array([False, True, True])
    seen = rollout(warmup=1, raw_parts=parts, raw_terms=terms, settled=settled)
    score = draft.with_memories(neutral, [seen] * 50, white=False, unseen=0).score
    (memory,) = score.memories
    # From the mean of the raw ones, falling by a tenth and rising by a fifth of the way:
    # 2 -> 1.9 -> 2.12; 2 -> 2 -> 2; 4 -> 3.9 -> 4.12; 6 -> 5.8 -> 6.24.
    assert memory.mean == pytest.approx((2.01, 0, 2, 4.01, 0, 6.02))
    # Half of the values are the smaller, half the larger one.
    expected = (0.11, 1e-3, 1e-3, 0.11, 1e-3, 0.22)
    assert memory.std == pytest.approx(expected, rel=1e-4)
    assert score.residual_mean == pytest.approx((3.01,) * 3)
    assert score.evidence_mean == pytest.approx((13.01,) * 3)
    assert score.level_mean == pytest.approx((23.01, 3.01, 3.01))


def usual(
    draft_: Manifest, seen: list[Rollout], white: bool = False, unseen: int = 10_000
) -> tuple[Memory, ...]:
    return draft.with_memories(draft_, seen, white, unseen).score.memories


def test_what_was_distrusted_is_smoothed_but_not_counted(neutral: Manifest) -> None:
    settled = np.ones(ROWS, bool)
    settled[50:80] = False
    parts = np.random.default_rng(0).random((ROWS, COUNT)).astype(np.float32)
    wild = parts.copy()
    wild[50:80] += 5
    (calm,), (after,) = (
        usual(neutral, [rollout(raw_parts=p, settled=settled)]) for p in (parts, wild)
    )
    assert (np.array(after.mean) > calm.mean).all()  # it fades into what follows
    settled[80:] = False
    calm, after = (usual(neutral, [rollout(raw_parts=p, settled=settled)]) for p in (parts, wild))
    assert calm == after


@pytest.mark.parametrize("patient", [False, True])
def test_centred_scores_are_standard_on_the_rows_they_are_centred_on(
    neutral: Manifest, patient: bool
) -> None:
    seen = [rollout(seed=i, warmup=20, settled=np.arange(ROWS) >= 20) for i in range(12)]
    found = draft.with_memories(neutral, seen, patient, unseen=10_000)
    constants = score_constants(found)
    assert len(constants.mean) == (3 if patient else 1)
    rows = np.concatenate([rescored(r, constants).parts[r.settled] for r in seen]).astype(float)
    standard = (rows - constants.mean) / constants.std
    # The device starts from these means, the rollouts from those of the unsmoothed parts.
    np.testing.assert_allclose(np.median(standard, axis=0), 0, atol=0.15)
    np.testing.assert_allclose((standard < 1).mean(axis=0), 0.8413, atol=0.05)


def test_a_memory_that_a_short_recording_cannot_fill_is_left_out(neutral: Manifest) -> None:
    def attacks(unseen: int) -> list[float]:
        found = usual(neutral, [rollout()], white=True, unseen=unseen)
        return [memory.attack for memory in found]

    assert [attacks(unseen) for unseen in (10, 666, 667, 1999, 2000)] == [
        [0.2], [0.2], [0.2, 0.03], [0.2, 0.03], [0.2, 0.03, 0.01],
    ]  # fmt: skip


def test_ceilings_are_so_many_deviations_over_the_median_of_a_part(neutral: Manifest) -> None:
    seen = [rollout(seed=i) for i in range(12)]
    parts = np.concatenate([r.raw_parts for r in seen]).astype(float)
    middle, above = np.quantile(parts, (0.5, 0.8413), axis=0)
    for memory, (attack, decay, ceiling) in zip(
        usual(neutral, seen, white=True), draft.PATIENT, strict=True
    ):
        assert (memory.attack, memory.decay) == (attack, decay)
        np.testing.assert_allclose(memory.ceiling, middle + ceiling * (above - middle), rtol=1e-5)


def test_a_strange_stretch_in_clean_rows_does_not_numb_the_score(neutral: Manifest) -> None:
    calm = [rollout(seed=i) for i in range(8)]
    parts = calm[0].raw_parts.copy()
    parts[100:110] += 50
    strange = [replace(calm[0], raw_parts=parts), *calm[1:]]
    before, after = (np.array(usual(neutral, seen)[0].std) for seen in (calm, strange))
    assert (after < 1.3 * before).all()
    smooth = rescored(strange[0], score_constants(neutral)).parts
    assert (smooth.std(axis=0) > 10 * before).all()


def noise(seed: int, rows: int = 1500) -> np.ndarray:
    """Parts that know nothing of the step before."""
    return np.random.default_rng(seed).random((rows, COUNT))


def clustered(seed: int, rows: int = 1500) -> np.ndarray:
    """Parts that stay high or low for some ten steps."""
    steps, parts = noise(seed, rows) - 0.5, np.zeros((rows, COUNT))
    for i in range(1, rows):
        parts[i] = 0.9 * parts[i - 1] + steps[i]
    return parts + 3


def white(*pieces: np.ndarray, settled: np.ndarray | None = None) -> bool:
    """Whether such unsmoothed parts are taken for white."""
    return draft.is_white(
        [
            rollout(
                raw_parts=parts.astype(np.float32),
                raw_terms=np.zeros((len(parts), 3, 3), np.float32),
                settled=np.ones(len(parts), bool) if settled is None else settled,
            )
            for parts in pieces
        ]
    )


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_white_and_clusters_are_not(seed: int) -> None:
    assert white(noise(seed), noise(seed + 10))
    assert not white(clustered(seed), clustered(seed + 10))


def test_only_residual_and_distance_decide_whether_errors_are_white() -> None:
    others = [i for i in range(COUNT) if i not in (RESIDUAL, DISTANCE)]
    mixed, other = noise(1), clustered(1)
    mixed[:, others], other[:, others] = clustered(2)[:, others], noise(2)[:, others]
    assert white(mixed) and not white(other)


def test_unsettled_rows_do_not_decide_whether_errors_are_white() -> None:
    parts, settled = noise(3), np.ones(1500, bool)
    parts[:300] = 100 * clustered(3, 300)
    assert not white(parts)
    settled[:300] = False
    assert white(parts, settled=settled)


def test_a_recording_without_a_settled_row_says_nothing() -> None:
    pieces = [
        rollout(raw_parts=noise(3, ROWS).astype(np.float32), settled=np.full(ROWS, on))
        for on in (True, False)
    ]
    assert draft.is_white(pieces) and draft.is_white(pieces[:1])
    with pytest.raises(UnfitError, match=f"has {ROWS} rows, and ends before"):
        draft.is_white(pieces[1:])


def test_parts_that_never_move_are_white() -> None:
    assert white(np.ones((500, COUNT)))


def test_without_a_settled_row_nothing_can_be_centred(neutral: Manifest) -> None:
    unsettled = rollout(settled=np.zeros(ROWS, bool))
    with pytest.raises(UnfitError, match="record the healthy machine for longer"):
        draft.with_memories(neutral, [unsettled], white=False, unseen=0)
    # Every other row is empty, as where two loggers share a file: more of that would not help.
    holes = replace(unsettled, measured=np.arange(ROWS) % 2 == 0)
    with pytest.raises(
        UnfitError, match=r"50% of the clean rows have no usable .* leave the empty"
    ):
        draft.with_memories(neutral, [holes], white=False, unseen=0)


def test_fallback_limits_are_one_and_a_half_times_the_largest_clean_view(
    neutral: Manifest,
) -> None:
    value = np.zeros((8, 3), np.float32)
    value[:, 0] = [0, 2, 2, 2, -1, 0, 0, 0]
    value[:, 1] = 0.5
    mask = np.ones((8, 3), np.float32)
    mask[3:, 2] = 0
    limits = fallback_of(neutral, rollout(value=value, mask=mask))
    assert limits.range[:2] == (3.0, 0.75)
    # Level, smoothed with 0.1 from 0: 0.2, 0.38, 0.542 is the largest of channel 0.
    assert limits.level[0] == pytest.approx(1.5 * 0.542, rel=1e-5)
    assert limits.level[1] == pytest.approx(1.5 * 0.5 * (1 - 0.9**8), rel=1e-5)
    assert limits.change[0] == 1.5 * 3  # from 2 to -1
    # CUSUM with slack 1: three samples of 2 lean by 1 each.
    assert limits.cusum[0] == 1.5 * 3 and limits.cusum[1] == pytest.approx(1.5e-3)
    # A channel that moves may rest for 32 samples; one that never moved may go on for ever.
    assert limits.same == (32.0, 1e30, 1e30)
    assert limits.missing == (48.0, 48.0, 48.0)
    assert (limits.smoothing, limits.slack) == (0.1, 1.0)


def test_long_rests_and_holes_of_clean_rows_raise_their_limits(neutral: Manifest) -> None:
    value = np.zeros((120, 3), np.float32)
    value[100:, 0] = 1
    mask = np.ones((120, 3), np.float32)
    mask[:60, 1] = 0
    limits = fallback_of(neutral, rollout(value=value, mask=mask))
    assert limits.same[0] == 1.5 * 99 and limits.missing[1] == 1.5 * 60


def test_the_state_may_saturate_half_way_beyond_what_clean_rows_show(neutral: Manifest) -> None:
    shares = np.zeros(ROWS, np.float32)
    shares[7] = 0.25
    found = draft.with_state_limit(neutral, [rollout(), rollout(saturated=shares)])
    assert found.tiers.saturated_limit == pytest.approx(0.625)
    everything = rollout(saturated=np.ones(ROWS, np.float32))
    assert draft.with_state_limit(neutral, [everything]).tiers.saturated_limit == 1.0
