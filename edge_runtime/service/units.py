"""The unit template, the settings of each instance of it, and where systemd finds both."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.files import open_input, replace_file, sync

TEMPLATE = Path(__file__).with_name("gruard@.service")
SETTINGS = "gruard.conf"
BEGINNINGS = {
    TEMPLATE.name: "# gruard@NAME.service watches one machine",
    SETTINGS: "# Written by gruard service install; gruard service uninstall removes it.\n",
}
"""How each kind of file that gruard writes begins, and no other file does."""

_UNITS = Path("etc/systemd/system")
_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_NAMED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "%": "%%"}


def unit_name(name: str) -> str:
    """Return what the unit of the service `name` is called."""
    return f"gruard@{name}.service"


def unit_files(root: Path, name: str, settings: str) -> dict[Path, str]:
    """Return the files of the service `name` with their text, in the order to write them.

    root: the device's /. settings: what differs from the template. Without the template, which
    comes last, systemd ignores the settings.
    """
    own, template = _paths(root, name)
    return {own: BEGINNINGS[SETTINGS] + settings, template: TEMPLATE.read_text()}


def read_units(root: Path, name: str) -> dict[Path, str]:
    """Return the installed files of the service `name` with their text.

    Raises GruardError when there is no such service, or when gruard did not write it.
    """
    own, template = _paths(root, name)
    found = {file: text for file in (own, template) if (text := _read(file)) is not None}
    if own not in found:
        raise GruardError(f"{own}: there is no service {name}")
    return found


def as_text(files: Mapping[Path, str]) -> str:
    """Return the files as `systemctl cat` shows them, the template first."""
    return "\n".join(f"# {file}\n{text}" for file, text in reversed(list(files.items())))


def write_units(root: Path, name: str, settings: str, force: bool) -> list[Path]:
    """Write the files of the service `name` durably, all of them or none; return their paths.

    Raises GruardError for a file that gruard did not write, and for one with another text unless
    `force` is set.
    """
    files = unit_files(root, name, settings)
    before = {file: _read(file) for file in files}
    for file, text in files.items():
        if before[file] not in (None, text) and not force:
            raise GruardError(f"{file}: is there already and says otherwise; --force replaces it")
    try:
        for file, text in files.items():
            _put(file, text)
    except OSError as error:
        with suppress(OSError):
            for each, former in before.items():
                _put(each, former)
        raise GruardError(f"{file}: cannot be written ({error.strerror}); try sudo") from None
    return list(files)


def remove_units(root: Path, name: str) -> list[Path]:
    """Remove the settings of the service `name`, and the template with its last instance.

    Settings that others put into the folder of the instance stay, and so does the template then.
    Return what was removed.
    """
    own, *template = read_units(root, name)
    try:
        _put(own, None)
        if any(own.parents[1].glob("gruard@*.service.d")):
            template = []
        for file in template:
            _put(file, None)
    except OSError as error:
        raise GruardError(f"{own}: cannot be removed ({error.strerror}); try sudo") from None
    return [own, *template]


def systemd_runs(root: Path) -> bool:
    """Return whether systemd is this machine's service manager, and `root` this machine's /."""
    return root == Path("/") and Path("/run/systemd/system").is_dir()


def systemctl(*words: str) -> None:
    """Run systemctl. Raises GruardError with its own words when it refuses."""
    try:
        done = subprocess.run(
            ("systemctl", *words), capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise GruardError(f"systemctl cannot be run ({error.strerror})") from None
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise GruardError(f"systemctl {' '.join(words)}: {told}")


def command_line(words: Iterable[str]) -> str:
    """Return the value of ExecStart= that runs exactly `words`; the first is an absolute path.

    `:` in front keeps systemd from expanding environment variables, so `$` needs no quoting.
    """
    return ":" + " ".join(quoted(word) for word in words)


def quoted(word: str) -> str:
    """Return one word as systemd reads it back (systemd.syntax(7)). Raises GruardError: no text."""
    if any(0xD800 <= ord(mark) < 0xE000 or mark == "\0" for mark in word):
        raise GruardError(f"{word!r}: is not text, and a unit file is; rename it")
    return word if _PLAIN.fullmatch(word) else '"' + "".join(map(_escaped, word)) + '"'


def _escaped(mark: str) -> str:
    if mark in _NAMED or mark.isprintable():
        return _NAMED.get(mark, mark)
    return "".join(f"\\x{byte:02x}" for byte in mark.encode())


def _paths(root: Path, name: str) -> tuple[Path, Path]:
    """Return where the settings of the service `name` and the template lie."""
    folder = root / _UNITS
    return folder / f"{unit_name(name)}.d" / SETTINGS, folder / TEMPLATE.name


def _read(file: Path) -> str | None:
    """Return the text of a file of gruard's, None where there is none."""
    try:
        with open_input(file, "remove it") as stream:
            text = stream.read().decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise GruardError(f"{file}: cannot be read ({error})") from None
    if not text.startswith(BEGINNINGS[file.name]):
        raise GruardError(f"{file}: was not written by gruard and stays as it is; move it away")
    return text


def _put(file: Path, text: str | None) -> None:
    """Write `file` durably; None removes it, and the folder of an instance with its last file."""
    if text is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, text.encode())
        return
    file.unlink(missing_ok=True)
    sync(file.parent)
    if file.name == SETTINGS:
        with suppress(OSError):
            file.parent.rmdir()
