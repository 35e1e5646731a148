"""The ecosystems that `emit` writes a library for: each is a folder of files to fill in.

The folder `firmware/ecosystems/NAME` is what the library looks like. In its files and their names
`@word@` stands for a value, and a line with a word of a list is repeated for each of its entries.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from firmware_harness.boards import FIRMWARE

_WORD = re.compile("@([a-z]+)@")


@dataclass(frozen=True)
class Ecosystem:
    """name: of its folder. sources: folder of the C files in the library. sets_options: its build
    description gives them compiler options; otherwise the C files themselves do, by pragmas.

    shared: files that it takes from other ecosystems, as target and source."""

    name: str
    sources: str
    sets_options: bool
    shared: tuple[tuple[str, str], ...] = ()

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the path in the library and the text of each file, not yet filled in."""
        folder = FIRMWARE / "ecosystems" / self.name
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(folder)), path.read_text(encoding="utf-8")
        for target, source in self.shared:
            yield target, (folder.parent / source).read_text(encoding="utf-8")


_SKETCH = "arduino/examples/Watch/Watch.ino"
_LOOP = (("example/main.c", "cmake/example/main.c"), ("example/board.h", "cmake/example/board.h"))
CMAKE = Ecosystem("cmake", ".", True)
ALL = {
    each.name: each
    for each in (
        CMAKE,
        Ecosystem("arduino", "src", False),
        Ecosystem("platformio", "src", True, (("examples/watch/src/main.cpp", _SKETCH),)),
        Ecosystem("esp-idf", "src", True),
        Ecosystem("zephyr", "src", True),
        Ecosystem("cmsis-pack", "src", False, _LOOP),
        Ecosystem("stm32", "Middlewares/Third_Party/gruard", False),
    )
}


def filled(text: str, values: Mapping[str, str], lists: Mapping[str, Sequence[str]]) -> str:
    """Return `text` with its words replaced. KeyError for a word that is neither."""
    return "".join(_lines(line, values, lists) for line in text.splitlines(keepends=True))


def _lines(line: str, values: Mapping[str, str], lists: Mapping[str, Sequence[str]]) -> str:
    """Return `line`, or one for each entry of the list that it names."""
    words = _WORD.findall(line)
    repeated = next((word for word in words if word in lists), None)
    if repeated is None:
        return _WORD.sub(lambda found: values[found[1]], line)
    return "".join(filled(line, {**values, repeated: entry}, {}) for entry in lists[repeated])
