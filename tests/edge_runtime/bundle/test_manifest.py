"""The manifest survives JSON unchanged, and every kind of damage is named."""

import copy
import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_manifest import made_manifest

from edge_runtime.bundle.manifest import (
    LONGEST_PERIOD,
    PARTS,
    SHORTEST_PERIOD,
    Place,
    fallback_constants,
    to_dict,
)
from edge_runtime.bundle.manifest_rules import (
    LONGEST_BRIDGE,
    MOST_MEMORIES,
    OLDER,
    fallback_from_dict,
    from_dict,
)
from edge_runtime.errors import GruardError

GOOD = json.loads(json.dumps(to_dict(made_manifest())))
Path = tuple[str | int, ...]


def leaves(value: Any, path: Path = ()) -> list[Path]:
    """Paths of everything below `value` that is neither a list nor an object."""
    if isinstance(value, dict):
        return [p for key, v in value.items() for p in leaves(v, (*path, key))]
    if isinstance(value, list):
        return [p for i, v in enumerate(value[:2]) for p in leaves(v, (*path, i))]
    return [path]


def objects(value: Any, path: Path = ()) -> list[Path]:
    """Paths of all objects with fixed fields."""
    if isinstance(value, list):
        return [p for i, v in enumerate(value[:1]) for p in objects(v, (*path, i))]
    if not isinstance(value, dict):
        return []
    named = ("inputs", "outputs", "thresholds", "selection", "tools", "members", "proof")
    free = path[-1:] in [(name,) for name in named]
    below = [p for key, v in value.items() for p in objects(v, (*path, key))]
    return below if free else [path, *below]


def at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def with_value(path: Path, value: Any) -> Any:
    data = copy.deepcopy(GOOD)
    at(data, path[:-1])[path[-1]] = value
    return data


def refused(data: Any) -> str:
    with pytest.raises(GruardError) as caught:
        from_dict(data, "manifest.json")
    assert str(caught.value).startswith("manifest.json")
    return str(caught.value)


def test_a_manifest_is_the_same_after_json() -> None:
    manifest = made_manifest()
    assert from_dict(json.loads(json.dumps(to_dict(manifest))), "manifest.json") == manifest


@pytest.mark.parametrize("path", objects(GOOD), ids=str)
def test_every_missing_and_every_unknown_field_is_named(path: Path) -> None:
    for field in at(GOOD, path):
        data = copy.deepcopy(GOOD)
        del at(data, path)[field]
        assert field in refused(data)
    data = copy.deepcopy(GOOD)
    at(data, path)["colour"] = 1
    assert "colour" in refused(data)


@pytest.mark.parametrize("path", leaves(GOOD), ids=str)
def test_every_value_of_a_wrong_type_is_named(path: Path) -> None:
    named = next(key for key in reversed(path) if isinstance(key, str))
    for wrong in ([1], {"a": 1}, "text" if not isinstance(at(GOOD, path), str) else 7):
        assert named in refused(with_value(path, wrong))


@pytest.mark.parametrize("path", leaves(GOOD), ids=str)
def test_every_number_must_be_finite(path: Path) -> None:
    if isinstance(at(GOOD, path), float):
        named = next(key for key in reversed(path) if isinstance(key, str))
        for wrong in (float("nan"), float("inf"), -float("inf"), 10**400, True):
            assert named in refused(with_value(path, wrong))


@pytest.mark.parametrize("schema", [0, 1, 6, "3", None, 3.5])
def test_an_unknown_schema_says_what_to_do(schema: object) -> None:
    message = refused(with_value(("schema",), schema))
    assert f"schema {schema!r} is unknown" in message and "convert again" in message


def test_channels_that_an_older_gruard_kept_for_the_fallback_have_no_modes() -> None:
    known = fallback_constants(made_manifest())
    older = json.loads(json.dumps(asdict(known)))
    for channel in older["channels"]:
        del channel["modes"]
    assert fallback_from_dict(older, "fallback.json") == known


def test_modes_are_as_many_for_every_channel_and_one_tells_them_apart() -> None:
    place = {"center": 1.0, "scale": 2.0}

    def channels(*counts: int) -> Any:
        data = copy.deepcopy(GOOD)
        for channel, count in zip(data["channels"], counts, strict=True):
            channel["modes"] = [place] * count
        return data

    manifest = from_dict(channels(2, 2, 2), "manifest.json")
    assert manifest.channels[1].modes == (Place(1.0, 2.0),) * 2
    assert from_dict(json.loads(json.dumps(to_dict(manifest))), "manifest.json") == manifest
    from_dict(channels(16, 16, 16), "manifest.json")
    for counts in ((0, 2, 2), (2, 2, 0), (1, 1, 1), (3, 2, 2), (17, 17, 17), (2, 0, 0)):
        assert "channels: modes: 2 to 16" in refused(channels(*counts))
    two = channels(2, 2, 2)
    two["channels"][0]["modes"] = [{"center": 1.0, "scale": 0.0}] * 2
    assert "channels: modes: must be above 0" in refused(two)


@pytest.mark.parametrize("data", [None, [], "manifest", 1], ids=repr)
def test_a_manifest_is_an_object(data: object) -> None:
    assert "JSON object" in refused(data)


@pytest.mark.parametrize(
    "path",
    [
        ("forecast", "innovation_scale"),
        *(("score", name) for name in GOOD["score"] if name != "memories"),
        *(("score", "memories", 0, name) for name in ("ceiling", "mean", "std")),
        *(("fallback", name) for name in GOOD["fallback"] if name not in ("smoothing", "slack")),
        ("tables", "softplus"),
        ("tables", "log"),
    ],
    ids=str,
)
def test_every_vector_has_the_length_of_its_channels(path: Path) -> None:
    right = at(GOOD, path)
    for wrong in (right[:-1], [*right, right[0]]):
        message = refused(with_value(path, wrong))
        named = ".".join(part for part in path if isinstance(part, str))
        assert named in message and f"{len(right)} entries" in message


def test_the_rows_of_matrices_are_counted_too() -> None:
    for path in (("forecast", "highway", 0), ("score", "distance_root", 1)):
        assert "3 entries expected, 2 found" in refused(with_value(path, [1.0, 2.0]))
    without_lags = with_value(("forecast", "highway"), [])
    without_lags["forecast"] |= {"cross": [], "own": [], "ahead": [], "horizon": 0}
    without_lags["score"]["weights"] = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    assert "forecast.highway: at least one lag" in refused(without_lags)


@pytest.mark.parametrize("name", ["cross", "ahead"])
def test_a_forecast_of_all_channels_is_a_row_of_all_lags_per_channel_or_nothing_at_all(
    name: str,
) -> None:
    path = ("forecast", name)
    without = with_value(path, [])
    without["forecast"]["horizon"] = 2 if name == "cross" else 0
    without["score"]["weights"][PARTS.index("ahead")] = float(name == "cross")
    assert getattr(from_dict(without, "manifest.json").forecast, name) == ()
    right = at(GOOD, path)
    assert len(right) == 3 and {len(row) for row in right} == {3}  # one lag
    for wrong in (right[:-1], [*right, right[0]]):
        assert f"forecast.{name}: 3 entries expected" in refused(with_value(path, wrong))
    for width in (2, 6):
        wrong = [right[0], right[1], [0.0] * width]
        message = refused(with_value(path, wrong))
        assert f"a row of forecast.{name}: 3 entries expected, {width} found" in message
    two_lags = with_value(("forecast", "highway"), [[1.0] * 3] * 2)
    two_lags["forecast"]["own"] = [[1.0] * 3] * 2
    other = "ahead" if name == "cross" else "cross"
    two_lags["forecast"][other] = [[0.5] * 6] * 3
    assert f"a row of forecast.{name}: 6 entries expected, 3 found" in refused(two_lags)
    two_lags["forecast"][name] = [[0.5] * 6] * 3
    assert getattr(from_dict(two_lags, "manifest.json").forecast, name) == ((0.5,) * 6,) * 3


@pytest.mark.parametrize("horizon", [0, -1, 65])
def test_a_forecast_from_afar_says_from_how_far(horizon: int) -> None:
    assert "forecast.horizon" in refused(with_value(("forecast", "horizon"), horizon))


@pytest.mark.parametrize("name", ["own", "ahead"])
def test_a_part_that_counts_has_its_forecast(name: str) -> None:
    without = with_value(("forecast", name), [])
    if name == "ahead":
        without["forecast"]["horizon"] = 0
    assert f"{name} counts without a forecast.{name}" in refused(without)
    without["score"]["weights"][PARTS.index(name)] = 0.0
    assert getattr(from_dict(without, "manifest.json").forecast, name) == ()


def test_a_score_of_an_older_schema_has_one_memory_and_four_parts() -> None:
    older = json.loads(json.dumps(to_dict(made_manifest())))
    older["schema"] = 4
    for channel in older["channels"]:
        del channel["modes"]
    for name in ("own", "ahead", "horizon"):
        del older["forecast"][name]
    score = older["score"]
    for name in ("memories", "error_scale"):
        del score[name]
    score |= {
        "attack": 0.3, "decay": 0.05, "weights": [1.0, 0.9, 0.8, 0.7],
        "part_mean": [1.0, 2.0, 3.0, 4.0], "part_std": [5.0, 6.0, 7.0, 8.0],
        "residual_scale": [1.0, 2.0, 3.0], "absent": [4.0, 5.0, 6.0],
    }  # fmt: skip
    read = from_dict(older, "manifest.json")
    (memory,) = read.score.memories
    assert (memory.attack, memory.decay) == (0.3, 0.05) and min(memory.ceiling) == 1e30
    assert read.score.weights == (1.0, 0.0, 0.9, 0.8, 0.0, 0.7)
    assert memory.mean == (1.0, 0.0, 2.0, 3.0, 0.0, 4.0)
    assert memory.std == (5.0, 1.0, 6.0, 7.0, 1.0, 8.0)
    assert read.score.error_scale == ((1.0, 2.0, 3.0), (1.0,) * 3, (1.0,) * 3)
    assert read.score.absent == ((4.0, 5.0, 6.0), (0.0,) * 3, (0.0,) * 3)
    assert (read.forecast.own, read.forecast.ahead, read.forecast.horizon) == ((), (), 0)
    for name in ("weights", "part_mean", "residual_scale", "attack"):
        broken = json.loads(json.dumps(older))
        del broken["score"][name]
        assert refused(broken)


def test_a_manifest_without_graph_inputs_is_linear() -> None:
    assert not made_manifest().linear
    linear = made_manifest(inputs={}, outputs={})
    assert linear.linear
    assert from_dict(json.loads(json.dumps(to_dict(linear))), "manifest.json") == linear


@pytest.mark.parametrize(
    ("path", "value"),
    [(("channels", 1, "name"), "demand"), (("channels",), [])],
)
def test_channels_have_different_names(path: Path, value: object) -> None:
    assert "channels" in refused(with_value(path, value))


@pytest.mark.parametrize("divisor", [0.0, -1.0, 1e-45])
@pytest.mark.parametrize(
    "path",
    [
        ("period",),
        ("channels", 1, "scale"),
        ("inputs", "mask", "scale"),
        ("forecast", "innovation_scale", 2),
        ("score", "memories", 0, "std", 0),
        ("score", "error_scale", 2, 1),
        ("fallback", "cusum", 2),
    ],
    ids=str,
)
def test_no_divisor_may_be_zero_or_vanish_in_float32(path: Path, divisor: float) -> None:
    named = next(key for key in reversed(path) if isinstance(key, str))
    assert f"{named}: must be above 0" in refused(with_value(path, divisor))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("alarm", "m"), 0),
        (("alarm", "m"), 4),  # of 3: could never ring
        (("alarm", "n"), 0),
        (("alarm", "clear_after"), 0),
        (("score", "memories", 0, "attack"), 0.0),
        (("score", "memories", 0, "decay"), -0.1),
        (("score", "memories", 0, "decay"), 1.01),
        (("fallback", "smoothing"), 1.5),
    ],
    ids=str,
)
def test_constants_that_would_silence_the_alarm_are_refused(path: Path, value: float) -> None:
    assert path[0] in refused(with_value(path, value))


@pytest.mark.parametrize(
    ("path", "values", "told"),
    [
        (("period",), (SHORTEST_PERIOD / 2, LONGEST_PERIOD * 2), "period: "),
        (("tiers", "bridge"), (-1, LONGEST_BRIDGE + 1), "tiers.bridge: 0 to "),
        (("score", "weights"), ([0.0] * 6, [*[1.0] * 5, -1.0]), "score.weights: none below 0"),
        (
            ("score", "memories"),
            ([], GOOD["score"]["memories"] * (MOST_MEMORIES + 1)),
            "score.memories: 1 to ",
        ),
    ],
    ids=str,
)
def test_a_constant_beyond_its_range_is_named_with_the_range(
    path: Path, values: tuple[object, object], told: str
) -> None:
    for value in values:
        assert told in refused(with_value(path, value))


@pytest.mark.parametrize("name", ["channels", "forecast", "score"])
@pytest.mark.parametrize("wrong", [None, 7, "text"], ids=repr)
def test_a_section_of_an_older_schema_that_is_none_is_named(name: str, wrong: object) -> None:
    assert f"manifest.json: {name}" in refused({**GOOD, "schema": OLDER, name: wrong})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(path=st.sampled_from(leaves(GOOD) + objects(GOOD)[1:]), value=json_values)
def test_any_other_value_is_read_or_refused_but_never_a_crash(path: Path, value: object) -> None:
    try:
        from_dict(with_value(path, value), "manifest.json")
    except GruardError as error:
        assert str(error).startswith("manifest.json")


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[2J", "a\ud800", "\u2028", "\x7f", "\x85"], ids=ascii
)
@pytest.mark.parametrize("path", [("name",), ("channels", 0, "unit")], ids=str)
def test_a_text_that_would_spoil_a_terminal_or_a_record_is_refused(path: Path, text: str) -> None:
    message = refused(with_value(path, text))
    assert "has control characters; rename it" in message and message.isprintable()


def test_names_in_objects_are_texts_too() -> None:
    data = with_value(("members", "a\nb"), "0" * 64)
    assert "has control characters" in refused(data)
    assert (
        from_dict(with_value(("name",), "Öl-Pumpe µ °C 泵"), "manifest").name == "Öl-Pumpe µ °C 泵"
    )


@pytest.mark.parametrize("value", [10**16, -(10**16), 10**5000], ids=["large", "negative", "huge"])
def test_a_count_that_no_clock_reaches_is_refused(value: int) -> None:
    assert "alarm: n: an integer of more" in refused(with_value(("alarm", "n"), value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), ["x" * 100_000]),
        (("name",), {"x" * 100_000: 1}),
        (("version",), "x\n" * 100_000),
        (("period",), 10**5000),
        (("schema",), 10**5000),
        (("schema",), "x\n" * 100_000),
        (("x\n" * 100_000,), 1),
        (("tools",), "x" * 100_000),
        (("members", "x" * 100_000), 7),
        (("members", "x\n" * 100_000), 7),
    ],
    ids=lambda value: "",
)
def test_a_message_is_one_short_line_whatever_the_manifest_says(path: Path, value: Any) -> None:
    message = refused(with_value(path, value))
    assert message.isprintable() and len(message) < 500


def test_of_many_unknown_fields_the_first_are_named() -> None:
    data = {**GOOD, **{f"field{i}": 1 for i in range(1000)}}
    assert "unknown: field0, field1" in refused(data) and len(refused(data)) < 500
