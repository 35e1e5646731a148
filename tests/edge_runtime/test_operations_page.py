"""The commands that the docs show are commands of gruard and make, with options that they have."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edge_runtime.commands.main import gruard

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
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
    if names == ["service", "install"]:  # what follows -- is for gruard run
        check(["run", *context.params["words"]])


def faults(page: str) -> list[str]:
    found = []
    for words in commands(page):
        try:
            check(list(words))
        except click.ClickException as error:
            found.append(f"gruard {' '.join(words)}: {error.format_message()}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What it is, here\n[a](page.md#what-it-is-here) [b](no.md) ![c](#there)\n")
    assert dead_links(page) == ["no.md#", "#there"]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_readme_lists_what_make_help_lists() -> None:
    listed, everything = (
        subprocess.run(["make", "-s", name], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in ("help", "help-all")
    )
    assert f"```\n{listed.stdout}```" in (ROOT / "README.md").read_text(encoding="utf-8")
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
