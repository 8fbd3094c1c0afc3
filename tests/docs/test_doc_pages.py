"""Whatever a page names is there: files, links, commands, settings, targets of make."""

from __future__ import annotations

import re

import click
import pytest

from orchestrator.cli.main import cli
from orchestrator.settings import PREFIX, Settings
from orchestrator.web.metrics import catalogue
from tests.support.pages import HEADING, Page, page, pages
from tests.support.tree import ROOT

ALL = [pytest.param(one, id=str(one)) for one in pages()]
FOLDERS = ("benchmarks", "connectors", "deploy", "docs", "examples", "newsfragments", "orchestrator", "tests", "tools",
           "workflows")  # fmt: skip
FAMILIES = {"HABEAS_TEST_", "HABEAS_CONFIG", "HABEAS_VERSION"}
"""Variables that are no settings: the tests', and those of the compose file."""
GLOBAL_OPTIONS = {"--help"}


@pytest.mark.parametrize("one", ALL)
def test_every_link_inside_the_project_leads_somewhere(one: Page) -> None:
    broken = []
    for link in one.links:
        path, _, anchor = link.partition("#")
        target = (one.path.parent / path).resolve() if path else one.path
        if not target.exists() or (anchor and anchor not in Page(target).anchors):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("one", ALL)
def test_every_file_that_is_named_is_there(one: Page) -> None:
    """Paths from the project's root, between backticks; ``*`` stands for at least one file."""
    named = [span for span in one.spans if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./*-]*", span)]
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("one", ALL)
def test_every_command_that_is_named_exists_with_its_options(one: Page) -> None:
    assert [" ".join(words) for words in one.commands if not exists(words)] == []


def exists(words: list[str]) -> bool:
    """Whether ``habeas`` takes this command and each option that is named."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            return False
        command, words = found, words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)} <= known | GLOBAL_OPTIONS


@pytest.mark.parametrize("one", ALL)
def test_every_setting_that_is_named_exists(one: Page) -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    known = settings | {f"{name}_FILE" for name in settings}
    named = set(re.findall(r"\bHABEAS_[A-Z0-9_]*", one.text))
    assert {name for name in named - known if name != PREFIX and not name.startswith(tuple(FAMILIES))} == set()


@pytest.mark.parametrize("one", ALL)
def test_every_make_target_that_is_named_exists(one: Page) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = one.spans + [line.removeprefix("$ ") for block in one.blocks("console") for line in block.splitlines()]
    named = {match[1] for text in code if (match := re.match(r"make ([a-z]+)", text))}
    assert named <= targets


@pytest.mark.parametrize("one", ALL)
def test_a_page_begins_with_its_title_and_says_what_it_is_for(one: Page) -> None:
    title, _, rest = one.text.partition("\n")
    assert HEADING.fullmatch(title)
    assert re.match(r"\n*(?![#|`])\S[^\n]{20}", rest)


@pytest.mark.parametrize("one", ALL)
def test_no_page_speaks_of_the_machine_that_it_was_written_on(one: Page) -> None:
    private = re.compile(r"(?i)(?<![\w.])/(home|root|tmp|users)/\w|localhost:\d{4}/simple")
    assert private.findall(one.text) == []
    assert f"{ROOT}/" not in one.text


def test_every_page_can_be_reached_from_the_readme() -> None:
    found = {page("README.md")}
    ahead = list(found)
    while ahead:
        one = ahead.pop()
        targets = {(one.path.parent / link.partition("#")[0]).resolve() for link in one.links}
        new = {Page(target) for target in targets if target.suffix == ".md" and target.exists()} - found
        found |= new
        ahead += new
    assert {str(one) for one in pages()} - {str(one) for one in found} == set()


def test_every_command_is_told_of() -> None:
    told = {tuple(words[:n]) for one in pages() for words in one.commands for n in (1, 2)}
    assert {name for name in cli.commands if (name,) not in told} == set()


@pytest.mark.parametrize("path", ["docs/how-to/operate.md", "docs/how-to/run-in-production.md"])
def test_every_metric_that_is_named_exists(path: str) -> None:
    known = {name for name, *_ in catalogue()}
    assert set(re.findall(r"\bhabeas_[a-z_]+", page(path).text)) - known == set()
