"""The gain before the choice beside the gain by labels."""

import pytest

from benchmarks.accuracy_report import ChoiceReport, Result, choice_table, choices, rank_correlation


def auto(series: str, gain: float, network: bool, seed: int = 0) -> list[Result]:
    seen = {"vus_pr": 0.5, "injected_linear": 0.25, "injected_gated": 0.25 + gain}
    twins = ["gruard-auto", *(["gruard-auto-float"] if network else [])]
    return [Result(row, series, seed, dict(seen)) for row in twins]


def labelled(series: str, gain: float, seed: int = 0) -> list[Result]:
    return [
        Result("gruard-linear", series, 0, {"vus_pr": 0.5}),
        Result("gruard-gated", series, seed, {"vus_pr": 0.5 + gain}),
    ]


def test_gains_are_those_of_the_same_series_and_seed() -> None:
    results = [*auto("simulator/0", 0.125, True, 1), *labelled("simulator/0", 0.25, 1)]
    results += auto("asd/omi-1", 0.0, False)
    assert choices(results) == [
        ChoiceReport("simulator/0", 1, 0.125, 0.25, True),
        ChoiceReport("asd/omi-1", 0, 0.0, None, False),
    ]
    text = choice_table(results)
    assert "| simulator/0 | 1 | +0.125 | +0.250 | network |" in text
    assert "| asd/omi-1 | 0 | +0.000 | – | linear |" in text and "too few pairs" in text


def test_models_that_were_asked_for_were_not_chosen() -> None:
    assert choice_table(labelled("asd/omi-1", 0.1)) == ""


@pytest.mark.parametrize(("gains", "expected"), [((1, 2, 3, 4), 1.0), ((4, 3, 2, 1), -1.0)])
def test_ranks_alone_count(gains: tuple[int, ...], expected: float) -> None:
    found = [ChoiceReport("s", i, 0.001 * 10**i, gain, True) for i, gain in enumerate(gains)]
    assert rank_correlation(found) == pytest.approx(expected)
    assert rank_correlation([*found[:3], ChoiceReport("s", 3, 0.5, None, True)]) is None
