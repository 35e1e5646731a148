"""Tables as Markdown, the pages of docs/ that hold them between two markers, and the machine."""

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click

from train.run_folder import write_atomically


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns except the first are right-aligned."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def markers(name: str) -> tuple[str, str]:
    """Return the two markers around the part of a page that a command writes."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def with_tables(text: str, content: str, name: str = "table") -> str:
    """Replace the text between the markers. ValueError unless each marker occurs once."""
    begin, end = markers(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the page needs {begin} and, after it, {end}, once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def fill_page(page: Path, content: str, name: str = "table") -> None:
    """Replace the part `name` of `page` by `content`."""
    write_atomically(page, with_tables(page.read_text(encoding="utf-8"), content, name).encode())


def page_option(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option --out, which checks at the start that the page has the parts `names`."""
    parts = names or ("table",)

    def checked(context: click.Context, option: click.Parameter, page: Path | None) -> Path | None:
        if page is None:
            return None
        try:
            text = page.read_text(encoding="utf-8")
            for name in parts:
                with_tables(text, "", name)
        except (OSError, ValueError) as error:
            raise click.BadParameter(f"{page}: {error}") from None
        return page

    return click.option(
        "--out", type=click.Path(path_type=Path), callback=checked,
        help=f"Page of docs/ whose parts are replaced: {', '.join(parts)}.",
    )  # fmt: skip


def machine() -> str:
    """Return one line: processor, cores, operating system, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )
