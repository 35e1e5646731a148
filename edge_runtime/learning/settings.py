"""The optional settings file: period, and units, limits and role of each channel; YAML or TOML.

period: 0.02                  # seconds between samples
channels:
  flow: {unit: l/min, low: 0, high: 40, max_rate: 5.0, stuck_after: 50, exogenous: false}
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime.bundle.manifest import LONGEST_PERIOD, SHORTEST_PERIOD
from edge_runtime.errors import GruardError
from edge_runtime.files import open_input
from edge_runtime.plain import LARGEST, LARGEST_INTEGER, shown

SUFFIXES = (".yaml", ".yml", ".toml")


@dataclass(frozen=True)
class ChannelSettings:
    """Limits of one channel's readings; None means not limited.

    unit: for reports only. low, high: smallest and largest valid reading, raw units. max_rate:
    largest valid change in raw units per second. stuck_after: samples without any change after
    which the channel counts as stuck. exogenous: an input such as a set-point, never scored.
    """

    unit: str = ""
    low: float | None = None
    high: float | None = None
    max_rate: float | None = None
    stuck_after: int | None = None
    exogenous: bool = False


@dataclass(frozen=True)
class Settings:
    """period: seconds between samples or None; channels: one entry for every channel."""

    period: float | None
    channels: Mapping[str, ChannelSettings]


def find_settings(data: Path) -> Path | None:
    """Return the settings file next to a recording, or None.

    In a directory given as data, or next to a file, it is `channels.yaml|yml|toml`; a file named
    like the recording (`pump.yaml` for `pump.csv`) has precedence. Raises GruardError when one
    name exists with several suffixes.
    """
    folder = data if data.is_dir() else data.parent
    stems = ["channels"] if data.is_dir() else [_stem(data), "channels"]
    for stem in stems:
        files = [path for suffix in SUFFIXES if (path := folder / (stem + suffix)).is_file()]
        if len(files) > 1:
            names = " and ".join(path.name for path in files)
            raise GruardError(f"{folder}: both {names} are there; keep one settings file")
        if files:
            return files[0]
    return None


def declared(path: Path | None) -> tuple[float | None, tuple[str, ...]]:
    """Return the period and channels of a settings file, without comparing with the recordings.

    None and () without a file. Raises GruardError.
    """
    if path is None:
        return None, ()
    content = _mapping(_parse(path), "the file", f"{path}")
    channels = _mapping(content.get("channels", {}), "channels", f"{path}")
    return _declared_period(content, path), tuple(map(str, channels))


def load_settings(
    path: Path | None, channels: Sequence[str], units: Mapping[str, str] | None = None
) -> Settings:
    """Read and check a settings file; without one every channel has the defaults.

    units: of channels for which the file has none. GruardError names the file and the wrong key.
    """
    known = units or {}
    if path is None:
        return Settings(
            None, {name: ChannelSettings(unit=known.get(name, "")) for name in channels}
        )
    content = _mapping(_parse(path), "the file", f"{path}")
    _known_keys(content, ("period", "channels"), f"{path}")
    period = _declared_period(content, path)
    given = _mapping(content.get("channels", {}), "channels", f"{path}")
    _known_keys(given, channels, f"{path}: channels")
    settings = {name: _channel(given.get(name, {}), f"{path}: {name}") for name in channels}
    for name, channel in settings.items():
        settings[name] = replace(channel, unit=channel.unit or known.get(name, ""))
    if all(channel.exogenous for channel in settings.values()):
        raise GruardError(f"{path}: every channel is exogenous; leave at least one to watch")
    return Settings(period, settings)


def _declared_period(content: Mapping[str, Any], path: Path) -> float | None:
    period = content.get("period")
    return None if period is None else _period(period, f"{path}: period")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".parquet").removesuffix(".gz").removesuffix(".csv")


def _parse(path: Path) -> Any:
    if path.suffix not in SUFFIXES:
        raise GruardError(f"{path}: settings are YAML or TOML; name it {' or '.join(SUFFIXES)}")
    try:
        with open_input(path, "give a UTF-8 text file") as stream:
            text = stream.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise GruardError(f"{path}: cannot be read ({error}); give a UTF-8 text file") from None
    try:
        return _parse_toml(text, path) if path.suffix == ".toml" else _parse_yaml(text, path)
    except RecursionError:
        raise GruardError(f"{path}: is nested too deeply; settings have three levels") from None


def _parse_yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise GruardError(
            f"{path}: YAML needs the package PyYAML, which is not here; install it (on Debian: apt "
            "install python3-yaml), or write the settings as TOML"
        ) from None

    class Loader(yaml.SafeLoader):
        """Reports the position of a number or date that Python cannot represent."""

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except ValueError:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{_shown(node.value)} is no value", node.start_mark
                ) from None

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise GruardError(f"{path}: is not YAML ({problem}); repair it") from None


def _parse_toml(text: str, path: Path) -> Any:
    try:
        tomllib = importlib.import_module("tomllib")
    except ModuleNotFoundError:
        raise GruardError(f"{path}: TOML needs Python 3.11; write the settings as YAML") from None
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise GruardError(f"{path}: is not TOML ({error}); repair it") from None


def _channel(content: Any, where: str) -> ChannelSettings:
    given = _mapping(content, "the channel", where)
    _known_keys(given, tuple(ChannelSettings.__dataclass_fields__), where)
    checked: dict[str, Any] = {
        key: _CHECKS[key](value, f"{where}.{key}") for key, value in given.items()
    }
    settings = ChannelSettings(**checked)
    if settings.low is not None and settings.high is not None and settings.low >= settings.high:
        raise GruardError(
            f"{where}: low ({settings.low:g}) must be smaller than high ({settings.high:g})"
        )
    return settings


def _shown(value: Any) -> str:
    return shown(value, repr)


def _mapping(value: Any, what: str, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise GruardError(f"{where}: {what} must hold 'key: value' entries, not {_shown(value)}")
    return value


def _known_keys(content: Mapping[Any, Any], valid: Sequence[str], where: str) -> None:
    for key in content:
        if key not in valid:
            raise GruardError(
                f"{where}: unknown key {_shown(key)}; the keys are {', '.join(valid)}"
            )


def _number(value: Any, where: str) -> float:
    # In Python a bool is an int; as a number in a settings file it is an error.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= LARGEST:  # also false for NaN
        raise GruardError(f"{where} must be a finite number, not {_shown(value)}")
    return float(value)


def _positive(value: Any, where: str) -> float:
    if _number(value, where) <= 0:
        raise GruardError(f"{where} must be greater than 0, not {_shown(value)}")
    return float(value)


def _period(value: Any, where: str) -> float:
    if not SHORTEST_PERIOD <= _positive(value, where) <= LONGEST_PERIOD:
        raise GruardError(
            f"{where} must be {SHORTEST_PERIOD:g} to {LONGEST_PERIOD:g} s, not {_shown(value)}"
        )
    return float(value)


def _count(value: Any, where: str) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST_INTEGER:
        raise GruardError(
            f"{where} must be a whole number of samples, at least 1, not {_shown(value)}"
        )
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise GruardError(f"{where} must be text, not {_shown(value)}; put it in quotes")
    return value


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise GruardError(f"{where} must be true or false, not {_shown(value)}")
    return value


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "unit": _text,
    "low": _number,
    "high": _number,
    "max_rate": _positive,
    "stuck_after": _count,
    "exogenous": _truth,
}
