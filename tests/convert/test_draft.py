"""Each constant of the manifest against the same constant worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from convert import draft
from convert.rollout import Rollout
from edge_runtime.errors import GruardError
from edge_runtime.flatbuffer import GraphSummary, read_graph
from edge_runtime.manifest import Manifest
from train.run_folder import Run

ROWS = 200


@pytest.fixture(scope="module")
def graph(conversion) -> GraphSummary:  # type: ignore[no-untyped-def]
    return read_graph(conversion.model, "model")


@pytest.fixture(scope="module")
def neutral(tiny_run: Run, graph: GraphSummary) -> Manifest:
    return draft.draft_manifest(tiny_run, graph, 7)


def rollout(seed: int = 0, **arrays: np.ndarray) -> Rollout:
    """A made-up rollout of three channels, all usable and settled unless said otherwise."""
    rng = np.random.default_rng(seed)
    made = {
        "value": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "forecast": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "mask": np.ones((ROWS, 3), np.float32),
        "gate": np.ones((ROWS, 3), np.float32),
        "doubt": np.zeros((ROWS, 3), np.float32),
        "hidden": np.zeros((ROWS, 8), np.float32),
        "parts": rng.random((ROWS, 4)).astype(np.float32),
        "terms": rng.random((ROWS, 3, 3)).astype(np.float32),
        "score": np.zeros(ROWS, np.float32),
        "settled": np.ones(ROWS, bool),
        "saturated": np.zeros(ROWS, np.float32),
    }
    return Rollout(records=(), traces=(), **{**made, **arrays})


def test_the_draft_copies_the_run_and_the_graph(
    tiny_run: Run, graph: GraphSummary, neutral: Manifest
) -> None:
    assert (neutral.name, neutral.version, neutral.period) == ("tiny", 7, 1.0)
    assert neutral.channels == tiny_run.config.channels
    highway = np.array(neutral.forecast.highway, np.float32)
    np.testing.assert_array_equal(highway, tiny_run.weights["highway"])
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


@pytest.mark.parametrize(
    ("period", "rows", "window", "hour", "warmup"),
    [
        (1.0, 5000, 600, 3600, 100),
        (None, 5000, 600, 3600, 100),
        (0.1, 1000, 6000, 36000, 50),
        (60.0, 200, 600, 3600, 16),
        (0.02, 1999, 30000, 180000, 99),
    ],
)
def test_tier_bounds(period: float | None, rows: int, window: int, hour: int, warmup: int) -> None:
    bounds = draft.tier_bounds(period, rows)
    assert (bounds.window, bounds.hour, bounds.warmup) == (window, hour, warmup)
    assert (bounds.closed_limit, bounds.lost_limit, bounds.contradiction_limit) == (48, 16, 8)
    assert (bounds.free_run_limit, bounds.resync_channel, bounds.resync_all) == (16, 8, 24)
    assert (bounds.frozen_limit, bounds.agree) == (32, 100)


def test_residual_scales_are_the_99_percent_quantiles_of_usable_errors(neutral: Manifest) -> None:
    errors = np.linspace(0, 1, 101, dtype=np.float32)[:, np.newaxis] * np.array([1.0, 2.0, 0.001])
    zeros = np.zeros_like(errors)
    mask = np.ones_like(errors)
    mask[50:, 1] = 0
    seen = rollout(value=errors, forecast=zeros, mask=mask)
    found = draft.with_score_shapes(neutral, [seen]).score
    # 0.99 of 0 … 1; 0.99 of the usable 0 … 0.98; never below 0.05.
    assert found.residual_scale == pytest.approx((0.99, 0.98 * 0.99, 0.05), rel=1e-6)
    nothing = rollout(mask=np.zeros((ROWS, 3), np.float32))
    assert draft.with_score_shapes(neutral, [nothing]).score.residual_scale == (1.0, 1.0, 1.0)


def test_roots_whiten_errors_and_values(neutral: Manifest) -> None:
    rng = np.random.default_rng(1)
    mixing = np.array([[2.0, 0, 0], [1.0, 0.5, 0], [0.3, 0.2, 0.1]])
    errors = (rng.normal(size=(4000, 3)) @ mixing.T).astype(np.float32)
    values = rng.normal(size=(4000, 3)).astype(np.float32) * np.float32(3)
    pieces = [rollout(value=values[k], forecast=values[k] - errors[k], mask=np.ones((2000, 3)))
              for k in (slice(0, 2000), slice(2000, 4000))]  # fmt: skip
    score = draft.with_score_shapes(neutral, pieces).score
    for root, rows in ((score.distance_root, errors), (score.level_root, values)):
        whiten = np.array(root)
        moments = rows.astype(float).T @ rows / len(rows) + draft.SHRINKAGE * np.eye(3)
        np.testing.assert_allclose(whiten @ moments @ whiten.T, np.eye(3), atol=1e-4)
        assert not np.triu(whiten, 1).any()


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


def test_scores_are_centred_on_settled_rows(neutral: Manifest) -> None:
    parts = np.array([[1, 2, 3, 4], [3, 2, 5, 8], [99, 99, 99, 99]], np.float32)
    terms = np.stack([np.full((3, 3), i, np.float32) for i in (2, 4, 99)])
    terms[:, 1] += 10
    terms[:, 2, 0] += 20
    settled = np.array([True, True, False])
    seen = rollout(parts=parts, terms=terms, settled=settled)
    score = draft.with_score_centres(neutral, [seen]).score
    assert score.part_mean == (2, 2, 4, 6)
    assert score.part_std == pytest.approx((1, 1e-3, 1, 2))  # a part that never moves: 0.001
    assert score.residual_mean == (3, 3, 3)
    assert score.evidence_mean == (13, 13, 13)
    assert score.level_mean == (23, 3, 3)


def test_without_a_settled_row_nothing_can_be_centred(neutral: Manifest) -> None:
    with pytest.raises(GruardError, match="record the healthy machine for longer"):
        draft.with_score_centres(neutral, [rollout(settled=np.zeros(ROWS, bool))])


def test_fallback_limits_are_one_and_a_half_times_the_largest_clean_view(
    neutral: Manifest,
) -> None:
    value = np.zeros((8, 3), np.float32)
    value[:, 0] = [0, 2, 2, 2, -1, 0, 0, 0]
    value[:, 1] = 0.5
    mask = np.ones((8, 3), np.float32)
    mask[3:, 2] = 0
    limits = draft.with_fallback_limits(neutral, [rollout(value=value, mask=mask)]).fallback
    assert limits.range[:2] == (3.0, 0.75)
    # Level, smoothed with 0.1 from 0: 0.2, 0.38, 0.542 is the largest of channel 0.
    assert limits.level[0] == pytest.approx(1.5 * 0.542, rel=1e-5)
    assert limits.level[1] == pytest.approx(1.5 * 0.5 * (1 - 0.9**8), rel=1e-5)
    assert limits.change[0] == 1.5 * 3  # from 2 to -1
    # CUSUM with slack 1: three samples of 2 lean by 1 each.
    assert limits.cusum[0] == 1.5 * 3 and limits.cusum[1] == pytest.approx(1.5e-3)
    # A channel that moves may rest for 32 samples; one that never moved may go on for ever.
    assert limits.same == (32.0, np.float32(1e30), np.float32(1e30))
    assert limits.missing == (48.0, 48.0, 48.0)
    assert (limits.smoothing, limits.slack) == (0.1, 1.0)


def test_long_rests_and_holes_of_clean_rows_raise_their_limits(neutral: Manifest) -> None:
    value = np.zeros((120, 3), np.float32)
    value[100:, 0] = 1
    mask = np.ones((120, 3), np.float32)
    mask[:60, 1] = 0
    limits = draft.with_fallback_limits(neutral, [rollout(value=value, mask=mask)]).fallback
    assert limits.same[0] == 1.5 * 99 and limits.missing[1] == 1.5 * 60


def test_the_state_may_saturate_half_way_beyond_what_clean_rows_show(neutral: Manifest) -> None:
    shares = np.zeros(ROWS, np.float32)
    shares[7] = 0.25
    found = draft.with_state_limit(neutral, [rollout(), rollout(saturated=shares)])
    assert found.tiers.saturated_limit == pytest.approx(0.625)
    everything = rollout(saturated=np.ones(ROWS, np.float32))
    assert draft.with_state_limit(neutral, [everything]).tiers.saturated_limit == 1.0
