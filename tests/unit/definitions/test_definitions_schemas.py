"""The JSON Schemas that editors use are current, and take what the loader takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from orchestrator.definitions.schemas import DIRECTORY, main, schemas

ROOT = Path(__file__).parents[3]
SHIPPED = [p for p in sorted((ROOT / "workflows").glob("*.yaml")) if p.stem not in {"regulations", "categories"}]
FILES = {
    **dict.fromkeys(SHIPPED, "workflow"),
    ROOT / "workflows" / "regulations.yaml": "regulations",
    ROOT / "workflows" / "categories.yaml": "categories",
    ROOT / "examples" / "shop" / "systems.yaml": "systems",
    ROOT / "examples" / "shop" / "sources.yaml": "sources",
}


def validator(name: str) -> Draft202012Validator:
    schema: dict[str, Any] = json.loads(schemas()[f"{name}.schema.json"])
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", schemas())
def test_the_schema_in_the_tree_is_current(name: str) -> None:
    assert (DIRECTORY / name).read_text() == schemas()[name], "python -m orchestrator.definitions.schemas --write"


def test_the_check_says_so() -> None:
    assert main(["--check"]) == 0


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_shipped_file_is_valid_by_its_schema(path: Path) -> None:
    assert [e.message for e in validator(FILES[path]).iter_errors(yaml.safe_load(path.read_text()))] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_file_of_ours_names_the_schema_it_follows(path: Path) -> None:
    if path.parent.name == "workflows":
        line = path.read_text().splitlines()[0]
        assert line == f"# yaml-language-server: $schema=schemas/{FILES[path]}.schema.json"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("workflow", "{workflow: w, version: 1, right: erasure, steps: [{id: a, action: erase, need: [b]}]}"),
        ("workflow", "{workflow: w, version: 1, right: erasure, steps: [{id: a}]}"),
        ("workflow", "{workflow: w, version: 1, right: oblivion, steps: [{id: a, action: erase}]}"),
        ("workflow", "{workflow: w, version: 1, right: erasure, steps: []}"),
        ("systems", "{systems: [{name: crm}]}"),
        ("systems", "{systems: [{name: Crm, connector: sql}]}"),
        ("systems", "{systems: [{name: crm, connector: sql, bacth: 1}]}"),
        ("regulations", "{regulations: {gdpr: {month: 1}}}"),
        ("categories", "{categories: {a: [User]}}"),
        ("sources", "{sources: [{source: a, secrets: [{env: A, file: b}]}]}"),
        ("sources", "{sources: [{source: a, rights: [oblivion]}]}"),
    ],
)
def test_an_editor_marks_what_the_loader_refuses(name: str, text: str) -> None:
    assert list(validator(name).iter_errors(yaml.safe_load(text)))
