"""What C sources say: macros, enums and structs of plain numbers, for comparisons with Python."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_SECTION = re.compile(r"/\* (\w+(?:\.\w+)+) \*/")
_DEFINE = re.compile(r"#define GRUARD_(\w+) +(.+?)(?: +/\* (\w+) \*/)?")
_SUFFIX = re.compile(r"(?<=[\dA-F.])[fu]\b")
_FIELD = re.compile(r"(\w+) ([^;]+);")

Number = int | float


@dataclass(frozen=True)
class Shared:
    """A macro without its prefix; module and name: where Python has it."""

    macro: str
    value: Number
    module: str
    name: str


def value_of(text: str, known: dict[str, Number]) -> Number:
    """A constant expression of C, of numbers and `known` names."""
    found: Number = eval(_SUFFIX.sub("", text), {"__builtins__": {}}, dict(known))
    return found


def shared_macros(header: Path) -> list[Shared]:
    """Macros of `header` below comments that name a module of Python's.

    Raises ValueError for one that lies below none, or cannot be read.
    """
    found, module = [], ""
    for line in header.read_text().splitlines():
        if section := _SECTION.fullmatch(line):
            module = section[1]
        if not line.startswith("#define GRUARD_") or line.endswith("_H"):
            continue
        macro = _DEFINE.fullmatch(line)
        if not macro or not module:
            raise ValueError(f"{header.name}: {line}")
        name = macro[3] or macro[1]
        found.append(Shared(macro[1], value_of(macro[2], {}), module, name))
    return found


def macro(source: Path, name: str) -> Number:
    """The value of `#define name`."""
    (text,) = re.findall(rf"^#define {name} +(\S+)", source.read_text(), re.MULTILINE)
    return value_of(text, {})


def enum(source: Path, member: str, prefix: str = "") -> dict[str, int]:
    """The members of the enum that has `member`, in their order, without `prefix`.

    A value that is no number (another macro) is taken for the place.
    """
    text = _COMMENT.sub("", source.read_text())
    (body,) = (b for b in re.findall(r"enum \{([^}]*)\}", text) if re.search(rf"\b{member}\b", b))
    return {name.removeprefix(prefix): value for name, value in _members(body)}


def _members(body: str) -> Iterator[tuple[str, int]]:
    following = 0
    for item in filter(None, map(str.strip, body.split(","))):
        name, _, text = map(str.strip, item.partition("="))
        if text and text[0].isdigit():
            following = int(value_of(text, {}))
        yield name, following
        following += 1


def fields(source: Path, struct: str, known: dict[str, Number]) -> list[tuple[str, str, int]]:
    """Name, type and count of each field of `struct`; known: what array sizes are made of."""
    text = _COMMENT.sub("", source.read_text())
    (body,) = re.findall(rf"(?s)struct[^{{;]*\{{([^}}]*)\}} {struct};", text)
    return [
        (name.partition("[")[0], kind, int(value_of(size.strip("]"), known)) if size else 1)
        for kind, names in _FIELD.findall(body)
        for name, _, size in (item.strip().partition("[") for item in names.split(","))
    ]
