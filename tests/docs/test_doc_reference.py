"""The reference pages are complete: every word of the code's closed sets, every key, table and column."""

from __future__ import annotations

import importlib.util
import re
from enum import StrEnum

import pytest
from pydantic import BaseModel

from orchestrator import errors
from orchestrator.cli.exits import Exit
from orchestrator.core import vocabulary
from orchestrator.core.transitions import Move
from orchestrator.definitions import schema
from orchestrator.messages.sources import Source
from orchestrator.store.tables import metadata
from tests.support.pages import Page, page, section
from tests.support.tree import ROOT

MODELS = [
    (schema.SystemEntry, "Systems"),
    (schema.RateEntry, "Systems"),
    (schema.RetryEntry, "Systems"),
    (schema.BreakerEntry, "Systems"),
    (Source, "Sources"),
    (schema.WorkflowFile, "Workflows"),
    (schema.StepEntry, "Workflows"),
    (schema.RegulationEntry, "Regulations"),
]
SETS = [
    (vocabulary.StepState, "states"),
    (vocabulary.ParkedFor, "states"),
    (vocabulary.Failure, "states"),
    (vocabulary.Resolution, "states"),
    (vocabulary.DenialReason, "states"),
    (vocabulary.Right, "definitions"),
    (errors.Refusal, "errors"),
    (vocabulary.Failure, "errors"),
    (vocabulary.EventKind, "tables"),
]


def reference(name: str) -> Page:
    return page(f"docs/reference/{name}.md")


def coded(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def rows(text: str) -> dict[str, list[str]]:
    """First cell's names → the other cells, of every table in a text."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, *rest = [cell.strip() for cell in line.strip("| ").split(" | ")]
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), rest)
    return found


@pytest.mark.parametrize(("model", "heading"), MODELS)
def test_every_key_of_a_definition_file_is_explained_with_its_default(model: type[BaseModel], heading: str) -> None:
    told = rows(section(reference("definitions"), heading))
    keys = {field.alias or name: field for name, field in model.model_fields.items()}
    assert keys.keys() - told.keys() == set()
    for name, field in keys.items():
        default = told[name][0]
        if field.is_required():
            assert default == "required", name
        elif isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert default == f"{field.default:g}", name


@pytest.mark.parametrize(("words", "name"), SETS)
def test_every_word_of_a_closed_set_is_explained(words: type[StrEnum], name: str) -> None:
    assert {word.value for word in words} - coded(reference(name).text) == set()


def test_every_outcome_is_explained() -> None:
    told = rows(page("docs/explanation/outcomes.md").text)
    assert {outcome.value for outcome in vocabulary.Outcome} <= told.keys()


def test_every_error_is_explained() -> None:
    classes = {name for name in errors.__all__ if issubclass(getattr(errors, name), errors.HabeasError)}
    assert classes - {"HabeasError"} - coded(reference("errors").text) == set()


def test_every_table_and_column_is_explained_and_none_that_is_gone() -> None:
    tables = reference("tables")
    told = {
        heading: rows(section(tables, f"`{heading}`")).keys()
        for heading in re.findall(r"^## `(\w+)`$", tables.prose, re.MULTILINE)
    }
    assert told == {table.name: {column.name for column in table.columns} for table in metadata.tables.values()}
    assert rows(tables.prose.split("\n## ")[0]).keys() == told.keys()


def test_every_move_is_explained() -> None:
    told = {line.split("|")[1].strip() for line in reference("states").text.splitlines() if line.startswith("| ")}
    assert {move.value for move in Move} <= told


def test_the_state_diagram_is_drawn_from_the_table_of_today() -> None:
    spec = importlib.util.spec_from_file_location("state_diagram", ROOT / "tools" / "state_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = reference("states").text
    assert tool.filled(text) == text, "run: python tools/state_diagram.py --write"


def test_every_exit_code_is_explained() -> None:
    told = re.findall(r"^\| (\d) \|", section(reference("errors"), "Exit codes"), re.MULTILINE)
    assert [int(code) for code in told] == sorted(Exit)
