"""Every number that a user can give on a command line is finite and in a range."""

import math
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from convert.__main__ import cli as convert
from edge_runtime.bundle.manifest import LONGEST_PERIOD, SHORTEST_PERIOD
from edge_runtime.commands.main import gruard
from edge_runtime.commands.ranges import PERIOD
from firmware_harness.__main__ import cli as firmware_harness
from fleet.__main__ import cli as fleet
from train.__main__ import cli as train

NUMBERS = (click.types.IntParamType, click.types.FloatParamType)
STRANGE = ("nan", "-nan", "inf", "-inf", "1e999", "1e300", "-1", "-1e-320", "9" * 40, "1e-320x",
           "9" * 5000, "", "1,5", "0x10")  # fmt: skip


def numeric(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command with a numeric option, and that option."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from numeric(inner, (*words, name))
    for option in command.params:
        if isinstance(option.type, NUMBERS):
            yield (*words, option.opts[0])


OPTIONS = [
    pytest.param(root, words, id=" ".join((name, *words)))
    for name, root in (
        ("gruard", gruard), ("train", train), ("convert", convert), ("firmware", firmware_harness),
        ("fleet", fleet),
    )
    for words in numeric(root)
]  # fmt: skip


def parameter(root: click.Command, words: tuple[str, ...]) -> click.Parameter:
    command = root
    for name in words[:-1]:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return next(each for each in command.params if words[-1] in each.opts)


@pytest.mark.parametrize(("root", "words"), OPTIONS)
def test_a_number_is_finite_and_in_range(root: click.Command, words: tuple[str, ...]) -> None:
    kind = parameter(root, words).type
    assert isinstance(kind, (click.IntRange, click.FloatRange))
    assert kind.min is not None and kind.max is not None and math.isfinite(kind.max)
    for text in STRANGE:
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)
    for limit in (kind.min, kind.max):
        assert kind.convert(str(limit), None, None) == limit


@pytest.mark.parametrize(
    "words",
    [
        ("--deadline", "nan"), ("--deadline", "inf"), ("--rate", "1e-320"), ("--rate", "nan"),
        ("--healthy-minutes", "nan"), ("--journal-size", "9" * 20),
    ],
)  # fmt: skip
def test_the_error_names_the_option(words: tuple[str, str]) -> None:
    done = CliRunner().invoke(gruard, ["run", "x.gruard", "--source", "-", *words])
    assert done.exit_code == 2 and f"Invalid value for '{words[0]}'" in done.output


def test_options_and_bundles_agree_on_periods() -> None:
    assert (PERIOD.min, PERIOD.max) == (SHORTEST_PERIOD, LONGEST_PERIOD)
