"""Examples on the pages are ones that Habeas takes."""

from __future__ import annotations

import ast
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from connectors import registry
from connectors.contract import ConnectorConfig
from examples.shop.world import SYSTEMS, Shop
from orchestrator.definitions.loader import examine, examine_sources
from orchestrator.definitions.schema import CategoriesFile, RegulationsFile, SystemsFile, WorkflowFile
from orchestrator.publish import Publisher
from tests.support.pages import Page, page, pages
from tests.support.tree import ROOT

MODELS: dict[str, type[BaseModel]] = {
    "systems": SystemsFile,
    "workflow": WorkflowFile,
    "regulations": RegulationsFile,
    "categories": CategoriesFile,
}
"""The key that tells what kind of file an example is."""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PLACEHOLDERS = {"url": "postgresql+psycopg://crm@127.0.0.1/crm", "root": "/var/log"}


def blocks(*languages: str) -> list[Any]:
    return [
        pytest.param(one, block, id=f"{one}-{number}")
        for one in pages()
        for number, block in enumerate(one.blocks(*languages), 1)
    ]


@pytest.mark.parametrize(("one", "block"), blocks("yaml"))
def test_an_example_of_a_definition_file_holds(one: Page, block: str, tmp_path: Path) -> None:
    data = yaml.safe_load(block)
    kinds = MODELS.keys() & (data.keys() if isinstance(data, dict) else set())
    for kind in kinds:
        MODELS[kind].model_validate(data)
    if "sources" in data:
        path = tmp_path / "sources.yaml"
        path.write_text(block)
        names = {secret["env"] for source in data["sources"] for secret in source.get("secrets", ()) if "env" in secret}
        assert len(names) <= 1, "two sources of an example would share the placeholder"
        assert examine_sources(path, dict.fromkeys(names, SECRET))[1] == []


@pytest.mark.parametrize(("one", "block"), blocks("yaml"))
def test_the_settings_of_a_connector_in_an_example_hold(one: Page, block: str) -> None:
    data = yaml.safe_load(block)
    systems = data.get("systems", ()) if isinstance(data, dict) else ()
    for system in systems:
        if system["connector"] in registry.BUILT_IN:
            kind: type[ConnectorConfig] = registry.load(system["connector"]).Config
            kind.model_validate(given(system.get("config", {})))


def given(value: Any, key: str = "") -> Any:
    """A value with something plausible in place of references to secrets."""
    if isinstance(value, dict) and set(value) in ({"env"}, {"file"}):
        return PLACEHOLDERS.get(key, "a placeholder that is long enough")
    if isinstance(value, dict):
        return {name: given(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [given(inner) for inner in value]
    return value


@pytest.mark.parametrize(("one", "block"), blocks("python"))
def test_an_example_in_python_names_what_is_there(one: Page, block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("orchestrator", "connectors")):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "habeas":
            assert hasattr(Publisher, node.attr)


@pytest.mark.parametrize(("one", "block"), blocks("json"))
def test_an_example_in_json_is_json(one: Page, block: str) -> None:
    json.loads(block)


def shop_environment(folder: Path) -> dict[str, str]:
    shop = Shop.create(folder, "postgresql+psycopg://shop@127.0.0.1/shop", people=60)
    return {**shop.environment(), "SHOP_STRIPE_URL": "http://127.0.0.1:1"}


WORKFLOW_EXAMPLES = [case for case in blocks("yaml") if str(case.values[1]).startswith("workflow:")]


@pytest.mark.parametrize(("one", "block"), WORKFLOW_EXAMPLES)
def test_an_example_of_a_workflow_runs_on_the_demo_shop(one: Page, block: str, tmp_path: Path) -> None:
    folder = tmp_path / "workflows"
    shutil.copytree(ROOT / "workflows", folder)
    (folder / f"{yaml.safe_load(block)['right']}.yaml").write_text(block)
    assert examine(folder, SYSTEMS, shop_environment(tmp_path), builtin={})[1] == []


def test_the_systems_of_the_how_to_hold_together_with_their_data_map(tmp_path: Path) -> None:
    datamap, systems = page("docs/how-to/connect-a-system.md").blocks("yaml")
    (tmp_path / "datamap").mkdir()
    (tmp_path / "datamap" / "crm.yml").write_text(datamap)
    (tmp_path / "systems.yaml").write_text(systems)
    environment = {"CRM_DATABASE_URL": PLACEHOLDERS["url"], "STRIPE_KEY": "sk_test_example"}
    made, faults = examine(ROOT / "workflows", tmp_path / "systems.yaml", environment, builtin={})
    # A shop of three systems does not hold all that the shipped policy speaks of; the page says what to do about it.
    assert [fault.text for fault in faults if "no system holds data of the policy's category" not in fault.text] == []
    assert made is not None
    assert made.systems["payments"].identified_by & made.systems["crm"].discovers
