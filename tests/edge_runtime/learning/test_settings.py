"""The settings file: read exactly as described, every deviation named with file and key."""

import os
import sys
from pathlib import Path

import pytest

from edge_runtime.errors import GruardError
from edge_runtime.learning.settings import ChannelSettings, find_settings, load_settings

YAML = """
period: 0.02
channels:
  flow: {unit: l/min, low: 0, high: 40, max_rate: 5.0, stuck_after: 50}
  set_point: {exogenous: true}
"""
TOML = """
period = 0.02
[channels.flow]
unit = "l/min"
low = 0
high = 40
max_rate = 5.0
stuck_after = 50
[channels.set_point]
exogenous = true
"""
HAS_TOML = sys.version_info >= (3, 11)
FORMS = [("channels.yaml", YAML), ("channels.yml", YAML)] + HAS_TOML * [("channels.toml", TOML)]
CHANNELS = ("flow", "set_point", "temperature")


def write(folder: Path, text: str, name: str = "channels.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "text"), FORMS)
def test_yaml_and_toml_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    settings = load_settings(write(tmp_path, text, name), CHANNELS)
    assert settings.period == 0.02
    assert settings.channels == {
        "flow": ChannelSettings("l/min", 0.0, 40.0, 5.0, 50, False),
        "set_point": ChannelSettings(exogenous=True),
        "temperature": ChannelSettings(),
    }


def test_without_a_file_every_channel_has_the_defaults() -> None:
    settings = load_settings(None, CHANNELS)
    assert settings.period is None
    assert settings.channels == {name: ChannelSettings() for name in CHANNELS}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("the file must hold", "None")),
        ("[1, 2]", ("the file must hold", "a list of 2")),
        ("periods: 1", ("unknown key 'periods'", "period, channels")),
        ("period: fast", ("period must be a finite number", "'fast'")),
        ("period: 0", ("period must be greater than 0",)),
        ("channels: 3", ("channels must hold",)),
        ("channels: {flw: {}}", ("channels: unknown key 'flw'", "flow, set_point, temperature")),
        ("channels: {flow: 3}", ("flow: the channel must hold",)),
        ("channels: {flow: {lo: 3}}", ("flow: unknown key 'lo'", "unit, low, high, max_rate")),
        ("channels: {flow: {unit: 3}}", ("flow.unit must be text", "quotes")),
        ("channels: {flow: {low: true}}", ("flow.low must be a finite number", "True")),
        ("channels: {flow: {high: .nan}}", ("flow.high must be a finite number",)),
        ("channels: {flow: {max_rate: -1}}", ("flow.max_rate must be greater than 0",)),
        ("channels: {flow: {stuck_after: 2.5}}", ("flow.stuck_after must be a whole number",)),
        ("channels: {flow: {stuck_after: 0}}", ("flow.stuck_after must be a whole number",)),
        ("channels: {flow: {exogenous: 1}}", ("flow.exogenous must be true or false",)),
        ("channels: {flow: {low: 3, high: 3}}", ("flow: low (3) must be smaller than high (3)",)),
        ("channels: {flow", ("is not YAML",)),
        ("channels: {flow: {low: 1%s}}" % ("0" * 400), ("flow.low must be a finite number",)),
        ("channels: {flow: {low: 1.0e+300}}", ("flow.low must be a finite number",)),
        ("channels:\n  flow: {low: %s}" % ("9" * 5000), ("is not YAML", "line 2, column 15")),
        ("period: 2024-13-45", ("is not YAML ('2024-13-45' is no value", "line 1, column 9")),
        ("channels: %s" % ("[" * 5000), ("is nested too deeply",)),
        ("period: 1.0e-320", ("period must be 1e-06 to 1e+06 s",)),
        ("period: 1.0e+30", ("period must be 1e-06 to 1e+06 s",)),
        ("channels: {flow: {stuck_after: 1%s}}" % ("0" * 30), ("flow.stuck_after must be a",)),
        ("? %s\n: 1" % ("9" * 4000), ("unknown key an integer of more than 15 digits",)),
    ],
)
def test_deviations_are_named(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(GruardError) as caught:
        load_settings(write(tmp_path, text), CHANNELS)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for part in ("channels.yaml", *parts):
        assert part in message


def test_something_must_be_left_to_watch(tmp_path: Path) -> None:
    path = write(tmp_path, "channels: {flow: {exogenous: true}}")
    with pytest.raises(GruardError, match="every channel is exogenous"):
        load_settings(path, ("flow",))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(GruardError, match=r"none\.yaml: cannot be read"):
        load_settings(tmp_path / "none.yaml", CHANNELS)
    with pytest.raises(GruardError, match=r"channels\.json: settings are YAML or TOML"):
        load_settings(tmp_path / "channels.json", CHANNELS)


def test_broken_toml(tmp_path: Path) -> None:
    refusal = "is not TOML" if HAS_TOML else "TOML needs Python"
    with pytest.raises(GruardError, match=rf"channels\.toml: {refusal}"):
        load_settings(write(tmp_path, "period = ", "channels.toml"), CHANNELS)


def test_toml_on_python_3_10_names_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    with pytest.raises(GruardError, match=r"needs Python 3\.11; write the settings as YAML"):
        load_settings(write(tmp_path, TOML, "channels.toml"), CHANNELS)


def test_settings_are_found_beside_the_data(tmp_path: Path) -> None:
    data = tmp_path / "pump.csv.gz"
    assert find_settings(data) is None
    general = write(tmp_path, YAML, "channels.yml")
    assert find_settings(data) == general
    assert find_settings(tmp_path) == general
    own = write(tmp_path, YAML, "pump.yaml")
    assert find_settings(data) == own
    write(tmp_path, TOML, "pump.toml")
    with pytest.raises(GruardError, match=r"both pump\.yaml and pump\.toml are there; keep one"):
        find_settings(data)


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "channels.yaml"
    os.mkfifo(path)
    with pytest.raises(GruardError, match=f"{path}: is a named pipe, not a file; give a UTF-8"):
        load_settings(path, CHANNELS)
