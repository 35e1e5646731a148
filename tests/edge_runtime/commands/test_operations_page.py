"""What the docs show is there: commands of gruard and make, links, files, figures, every page."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edge_runtime.commands.main import gruard

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
FOR_DEVELOPERS = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
ROOMS = (
    "core",
    "edge_runtime",
    "train",
    "convert",
    "fleet",
    "firmware_harness",
    "benchmarks",
    "tests",
    "examples",
)
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SOURCE = re.compile(r"`([A-Za-z0-9_./-]+\.(?:py|c|h|toml))`")
_FIGURE = re.compile(r"\d{1,3}(?:,\d{3})+|\d+ of \d+")
_REDIRECTIONS = {">", ">>", "<"}
_ENDS = {"|", "||", "&&", ";", "&"}


def commands(page: str) -> Iterator[list[str]]:
    """The words after `gruard` in each line of a code block that runs it, pipelines apart."""
    for block in _FENCED.findall(page):
        for line in block.replace("\\\n", " ").splitlines():
            yield from commands_in(line)


def commands_in(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return  # output, not a command
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in _ENDS:
            command.append(word)
            continue
        end = next((i for i, word in enumerate(command) if word in _REDIRECTIONS), None)
        name, *rest = command[command[:1] == ["sudo"] : end] or [""]
        if Path(name).name == "gruard":
            yield rest
        command = []


def check(words: list[str]) -> None:
    """Raise click.UsageError unless gruard takes the words."""
    command: click.Command = gruard
    names: list[str] = []
    while isinstance(command, click.Group):
        if words[:1] in (["--version"], ["--help"]):
            return
        known = command.commands
        if not words or words[0] not in known:
            raise click.UsageError(f"gruard {' '.join(names)} has no {words[:1]}")
        command = known[words[0]]
        names.append(words.pop(0))
    context = command.make_context(" ".join(names), list(words))
    if names == ["service", "install"]:  # what follows -- is for gruard run, or is gruard record
        inner = context.params["words"]
        check([*inner] if inner[0] == "record" else ["run", *inner])


def faults(page: str) -> list[str]:
    found = []
    for words in commands(page):
        try:
            check(list(words))
        except click.ClickException as error:
            found.append(f"gruard {' '.join(words)}: {error.format_message()}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_are_as_gruard_has_them(page: Path) -> None:
    assert faults(page.read_text(encoding="utf-8")) == []


def test_the_operations_page_shows_a_whole_life() -> None:
    shown = [words[:2] for words in commands((ROOT / "docs/operations.md").read_text())]
    names = {words[0] for words in shown}
    assert {"inspect", "selftest", "replay", "run", "install", "status", "top", "journal"} <= names
    assert {"list", "rollback"} <= names
    assert ["service", "install"] in shown and ["service", "uninstall"] in shown


def test_targets_are_as_make_has_them() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for block in _FENCED.findall(page.read_text(encoding="utf-8")):
            shown = re.findall(r"^(?:sudo )?make ([a-z][a-z-]*)", block, re.MULTILINE)
            assert set(shown) <= targets, page.name


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Links and pictures of a page that lead to no file or no heading."""
    found = []
    for name, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(f"{name}#{anchor}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What it is, here\n[a](page.md#what-it-is-here) [b](no.md) ![c](#there)\n")
    assert dead_links(page) == ["no.md#", "#there"]


def linked(page: Path) -> set[Path]:
    names = [name for name, _ in _LINK.findall(page.read_text(encoding="utf-8")) if name]
    return {(page.parent / name).resolve() for name in names}


def test_the_map_leads_to_every_page() -> None:
    pages = set(DOCS.rglob("*.md")) - {DOCS / "README.md"}
    assert pages - linked(DOCS / "README.md") == set()
    assert DOCS / "README.md" in linked(ROOT / "README.md")


def missing_sources(text: str, files: list[str]) -> list[str]:
    """Names of source files in `text` that end the path of none of `files`; NAME stands for any."""
    names = [name for name in _SOURCE.findall(text) if "NAME" not in name]
    return [name for name in names if not any(f"/{file}".endswith(f"/{name}") for file in files)]


@pytest.mark.parametrize("page", FOR_DEVELOPERS, ids=lambda page: page.name)
def test_the_files_that_are_named_are_there(page: Path) -> None:
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*.[pch]*")]
    files = [str(path.relative_to(ROOT)) for path in (*found, *ROOT.glob("*.*"))]
    assert missing_sources(page.read_text(encoding="utf-8"), files) == []


def test_a_file_that_is_not_there_is_found() -> None:
    text = "`detector/step.py` `ector/step.py` `core/graph.c` `x/NAME.py` `step.py`"
    assert missing_sources(text, ["edge_runtime/detector/step.py"]) == [
        "ector/step.py", "core/graph.c"
    ]  # fmt: skip


def test_the_readme_is_one_screen_that_leads_on() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 900
    assert all(page in linked(ROOT / "README.md") for page in (READMES[1], *FOR_DEVELOPERS))


def code(page: Path) -> list[str]:
    """Blocks of code without what is a comment: from # or two spaces on, after the line's start."""
    blocks = _FENCED.findall(page.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.splitlines()]
    return [re.split(r"(?<=\S)(?: +#| {2,})", line)[0] for line in lines]


def test_both_readmes_show_the_same() -> None:
    english, chinese = READMES
    assert code(english) == code(chinese)
    assert linked(english) - {chinese} == linked(chinese) - {english}
    assert chinese in linked(english) and english in linked(chinese)


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_figures_of_the_readme_are_in_the_docs(page: Path) -> None:
    docs = "".join(each.read_text(encoding="utf-8") for each in DOCS.rglob("*.md"))
    figures = set(_FIGURE.findall(page.read_text(encoding="utf-8")))
    assert figures and {figure for figure in figures if figure not in docs} == set()


def test_the_record_of_the_readme_is_that_of_the_docs() -> None:
    for page in READMES:
        record = next(
            iter(re.findall(r"^\{.*?\}", "\n".join(code(page)), re.MULTILINE | re.DOTALL))
        )
        assert record.replace("\n ", "") in (DOCS / "records.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_readmes_list_what_make_help_lists() -> None:
    listed, everything = (
        subprocess.run(["make", "-s", name], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in ("help", "help-all")
    )
    for page in READMES:
        assert f"```\n{listed.stdout}```" in page.read_text(encoding="utf-8")
    assert set(listed.stdout.splitlines()) < set(everything.stdout.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "gruard fly",
        "sudo gruard install x.gruard --shop /x",
        "a | /opt/bin/gruard run x --source - --rate many",
        "gruard service install -- x.gruard --source - --watch-dog",
        "gruard service install -- x.gruard",
        "gruard inspect x \\\n  --jason",
        "gruard inspect x y",
        "gruard",
    ],
)
def test_a_wrong_line_is_found(line: str) -> None:
    assert faults(f"```\n{line}\n```\n")
