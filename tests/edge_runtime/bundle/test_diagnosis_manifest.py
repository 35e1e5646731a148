"""The manifest's section for the diagnosis: optional, exact, and trusted in nothing."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_manifest import channel, made_manifest

from edge_runtime.bundle.manifest import Manifest, to_dict
from edge_runtime.bundle.manifest_rules import from_dict
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.diagnosing import diagnosis_constants
from edge_runtime.errors import GruardError
from edge_runtime.symptoms import MOST_CHANNELS

Section = dict[str, Any]
VECTORS = (
    "smoothing", "center", "precision", "block", "deviation", "explained_mean", "explained_high",
    "move_mean", "jump_mean", "persistence", "longest_repeat", "feature_center", "feature_scale",
    "machine", "kinds",
)  # fmt: skip
DIVISORS = (
    "deviation", "explained_high", "move_mean", "jump_mean", "persistence", "feature_scale",
)  # fmt: skip


@pytest.fixture(scope="module")
def manifest(linear_bundle: Path) -> Manifest:
    found = read_bundle(linear_bundle).manifest
    assert found.diagnosis is not None
    return found


def refused(manifest: Manifest, harm: Callable[[Section], object]) -> str:
    data = json.loads(json.dumps(to_dict(manifest)))
    harm(data["diagnosis"])
    with pytest.raises(GruardError) as caught:
        from_dict(data, "manifest.json")
    return str(caught.value)


def test_the_section_is_the_same_after_json(manifest: Manifest) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(manifest))), "manifest.json") == manifest


def test_a_manifest_may_have_none(manifest: Manifest) -> None:
    data = to_dict(replace(manifest, diagnosis=None))
    assert data["diagnosis"] is None
    assert from_dict(json.loads(json.dumps(data)), "manifest.json").diagnosis is None
    del data["diagnosis"]
    with pytest.raises(GruardError, match="fields missing: diagnosis"):
        from_dict(data, "manifest.json")


def test_every_number_is_a_float32_and_comes_back_exactly(manifest: Manifest) -> None:
    constants = diagnosis_constants(manifest)
    assert constants is not None and manifest.diagnosis is not None
    assert constants.kinds.dtype == np.float32
    assert tuple(map(tuple, constants.kinds.tolist())) != ()
    again = np.array(manifest.diagnosis.kinds)
    np.testing.assert_array_equal(again.astype(np.float32), constants.kinds)
    np.testing.assert_array_equal(constants.symptoms.blameable, [0, 1, 1])
    assert all(float(str(np.float32(v))) == v for row in manifest.diagnosis.kinds for v in row)


@pytest.mark.parametrize("name", VECTORS)
def test_every_vector_and_matrix_has_its_length(manifest: Manifest, name: str) -> None:
    assert name in refused(manifest, lambda section: section[name].append(section[name][-1]))
    assert name in refused(manifest, lambda section: section[name].pop())


@pytest.mark.parametrize("name", ["center", "precision", "block", "kinds"])
def test_every_row_of_a_matrix_has_its_length(manifest: Manifest, name: str) -> None:
    assert name in refused(manifest, lambda section: section[name][-1].pop())


def test_every_row_of_a_block_has_its_length(manifest: Manifest) -> None:
    assert "block" in refused(manifest, lambda section: section["block"][1][1].pop())


@pytest.mark.parametrize("name", DIVISORS)
@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_no_divisor_is_zero(manifest: Manifest, name: str, wrong: float) -> None:
    def harm(section: Section) -> None:
        section[name][-1] = wrong

    assert f"diagnosis.{name}: must be above 0" in refused(manifest, harm)


def test_the_mean_distance_is_a_divisor(manifest: Manifest) -> None:
    assert "distance_mean" in refused(manifest, lambda section: section.update(distance_mean=0.0))


@pytest.mark.parametrize("wrong", [0.0, 1.5])
def test_a_smoothing_is_a_share(manifest: Manifest, wrong: float) -> None:
    def harm(section: Section) -> None:
        section["smoothing"][1] = wrong

    assert "diagnosis.smoothing[1]" in refused(manifest, harm)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "text", None, [1.0]], ids=repr)
def test_a_weight_is_a_finite_number(manifest: Manifest, wrong: object) -> None:
    def harm(section: Section) -> None:
        section["kinds"][0][0] = wrong

    assert "kinds" in refused(manifest, harm)


def test_a_missing_and_an_unknown_field_are_named(manifest: Manifest) -> None:
    assert "persistence" in refused(manifest, lambda section: section.pop("persistence"))
    assert "colour" in refused(manifest, lambda section: section.update(colour=1))


def test_more_channels_than_the_device_can_afford_are_refused(manifest: Manifest) -> None:
    count = MOST_CHANNELS + 1
    wide = made_manifest(channels=tuple(channel(f"c{i}") for i in range(count)))
    data = copy.deepcopy(to_dict(replace(wide, diagnosis=manifest.diagnosis)))
    with pytest.raises(GruardError, match=f"at most {MOST_CHANNELS} channels"):
        from_dict(json.loads(json.dumps(data)), "manifest.json")
