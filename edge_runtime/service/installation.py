"""Writing and removing units, and telling systemd, where it runs."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.files import open_input, replace_text, sync
from edge_runtime.service.unit import MARK, unit_name

UNITS = Path("etc/systemd/system")

Manager = Callable[[Sequence[str]], None]
"""Runs systemctl with these words. Raises GruardError when it fails."""


def unit_file(root: Path, name: str) -> Path:
    """Where the unit of the service `name` lies."""
    return root / UNITS / unit_name(name)


def read_unit(root: Path, name: str) -> str:
    """The installed unit. Raises GruardError unless there is one, and it is ours."""
    file = unit_file(root, name)
    try:
        with open_input(file, "remove it") as stream:
            text = stream.read().decode()
    except FileNotFoundError:
        raise GruardError(f"{file}: there is no service {name}") from None
    except (OSError, ValueError) as error:
        raise GruardError(f"{file}: cannot be read ({error})") from None
    if not text.startswith(MARK + "\n"):
        raise GruardError(f"{file}: was not written by gruard service install; it stays as it is")
    return text


def write_unit(root: Path, name: str, text: str, force: bool) -> Path:
    """Write the unit durably. An old one of ours is replaced when `force` is set."""
    file = unit_file(root, name)
    if file.exists() and read_unit(root, name) != text and not force:
        raise GruardError(f"{file}: is there already and says otherwise; --force replaces it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, text)
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({error.strerror}); try sudo") from None
    return file


def remove_unit(root: Path, name: str) -> Path:
    """Remove a unit of ours, and nothing else."""
    read_unit(root, name)
    file = unit_file(root, name)
    try:
        file.unlink()
        sync(file.parent)
    except OSError as error:
        raise GruardError(f"{file}: cannot be removed ({error.strerror}); try sudo") from None
    return file


def systemd_runs(root: Path) -> bool:
    """Whether systemd is this machine's service manager, and `root` this machine's."""
    return root == Path("/") and Path("/run/systemd/system").is_dir()


def systemctl(words: Sequence[str]) -> None:
    """Tell the running systemd. Raises GruardError with its own words when it refuses."""
    try:
        done = subprocess.run(
            ("systemctl", *words), capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise GruardError(f"systemctl cannot be run ({error.strerror})") from None
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise GruardError(f"systemctl {' '.join(words)}: {told}")
