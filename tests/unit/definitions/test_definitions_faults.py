"""Definition files: good ones load, and of bad ones every fault is named at once, by file and line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from connectors import registry
from connectors.desk import Desk, DeskConfig
from orchestrator.core.vocabulary import Right
from orchestrator.definitions.loader import examine, examine_sources, load
from orchestrator.errors import ConfigurationError
from tests.support import scripted

SHIPPED = Path(__file__).parents[3] / "workflows"
DESK = {"desk": Desk("desk", DeskConfig())}

CATEGORIES = "categories:\n  everything: [user]\n"
SYSTEMS = """\
systems:
  - name: crm
    connector: scripted
    config: {categories: [user]}
  - name: shop
    connector: scripted
    config: {categories: [user]}
"""


@pytest.fixture(autouse=True)
def scripted_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN, scripted.NAME, scripted.TARGET)


class Files:
    """A folder of definitions to spoil."""

    def __init__(self, folder: Path) -> None:
        self.workflows = folder / "workflows"
        shutil.copytree(SHIPPED, self.workflows, ignore=shutil.ignore_patterns("schemas", "*.md"))
        self.systems = folder / "systems.yaml"
        self.write("categories.yaml", CATEGORIES)
        self.systems.write_text(SYSTEMS)

    def write(self, name: str, text: str) -> None:
        (self.workflows / name).write_text(text)

    def faults(self, **environment: str) -> list[str]:
        """What is wrong, as ``file:line: text``."""
        _, found = examine(self.workflows, self.systems, environment, builtin=DESK)
        return [f"{Path(f.file).name}:{f.line}: {f.text}" for f in found]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_good_files_load(files: Files) -> None:
    assert files.faults() == []
    definitions = load(files.workflows, files.systems, {}, builtin=DESK)
    assert definitions.workflows.keys() == set(Right)
    assert definitions.systems.keys() == {"crm", "shop", "desk"}
    assert definitions.clocks["gdpr"].months == 1


FAULTY_SYSTEMS = {
    "a misspelt key": (
        "systems:\n  - name: crm\n    connector: scripted\n    bacth: 3\n",
        "systems.yaml:4: systems.0.bacth: is not known here; is it misspelt?",
    ),
    "a misspelt key of the connector's": (
        "systems:\n  - name: crm\n    connector: scripted\n    config:\n      categories: [user]\n      actoins: []\n",
        "systems.yaml:6: systems.0.config.actoins: is not known here; is it misspelt?",
    ),
    "a missing key": ("systems:\n  - name: crm\n", "systems.yaml:2: systems.0.connector: is missing"),
    "a key given twice": (
        "systems:\n  - name: crm\n    connector: scripted\n    name: shop\n",
        "systems.yaml:4: 'name' is given twice; the second would win silently",
    ),
    "two systems of one name": (
        SYSTEMS.replace("shop", "crm"),
        "systems.yaml:5: there are two systems named 'crm'",
    ),
    "the engine's own name": (
        SYSTEMS.replace("shop", "desk"),
        "systems.yaml:1: the system name 'desk' is the engine's own; choose another",
    ),
    "an unknown connector": (
        SYSTEMS.replace("connector: scripted", "connector: nonsense", 1),
        "systems.yaml:3: there is no connector 'nonsense'; there are: desk, logs, payments.stripe, scripted, sql",
    ),
    "a secret that is not set": (
        SYSTEMS.replace("config: {categories: [user]}", "config: {categories: [{env: MISSING}]}", 1),
        "systems.yaml:4: the environment variable MISSING is not set",
    ),
    "a secret file that is not there": (
        SYSTEMS.replace("config: {categories: [user]}", "config: {categories: [{file: nowhere}]}", 1),
        "systems.yaml:4: the secret file nowhere cannot be read as text",
    ),
    "a circle in erase_after": (
        SYSTEMS.replace("name: crm", "name: crm\n    erase_after: [shop]").replace(
            "name: shop", "name: shop\n    erase_after: [crm]"
        ),
        "systems.yaml:1: erase_after runs in a circle: ",
    ),
    "an erase_after that is nowhere": (
        SYSTEMS.replace("name: crm", "name: crm\n    erase_after: [nowhere]"),
        "systems.yaml:3: crm is erased after 'nowhere', and there is no such system",
    ),
    "data that no category of the policy covers": (
        SYSTEMS.replace("[user]", "[user, system.operations]", 1),
        "systems.yaml:2: crm holds 'system.operations', which no category of the policy covers",
    ),
    "an action that cannot be and is not explained": (
        SYSTEMS.replace("{categories: [user]}", "{categories: [user], actions: [access, erase, rectify, restrict]}", 1),
        "systems.yaml:2: crm cannot suppress (scripted has no such action); say why: cannot: {suppress: …}",
    ),
    "no YAML": ("systems: [", "systems.yaml:1: is not YAML"),
    "a tab for indentation": ("systems:\n\t- name: crm\n", "systems.yaml:2: is not YAML"),
    "no mapping": ("- crm\n", "systems.yaml:1: "),
    "no systems": ("systems: []\n", "systems.yaml:1: systems: "),
    "an empty file": ("", "systems.yaml:1: systems: is missing"),
    "an alias that holds itself": ("systems: &a [*a]\n", "systems.yaml:1: "),
}


@pytest.mark.parametrize("kind", FAULTY_SYSTEMS)
def test_a_fault_of_the_systems_file_is_named_with_its_line(files: Files, kind: str) -> None:
    text, expected = FAULTY_SYSTEMS[kind]
    files.systems.write_text(text)
    found = files.faults()
    assert any(fault.startswith(expected) for fault in found), found


ERASURE = "workflow: erasure\nversion: 1\nright: erasure\nsteps:\n"
FAULTY_WORKFLOWS = {
    "an unknown system": (
        "  - id: erase\n    action: erase\n    systems: [crm, nowhere]\n",
        "erasure.yaml:7: erase: there is no system 'nowhere'; there are: crm, shop",
    ),
    "an action that a named system cannot do": (
        "  - id: erase\n    action: erase\n  - id: gather\n    action: package\n    systems: [crm]\n",
        "erasure.yaml:9: gather: system 'crm' cannot package (its connector scripted has no such action)",
    ),
    "a circle": (
        "  - {id: one, action: erase, needs: [two]}\n  - {id: two, action: access, needs: [one]}\n",
        "erasure.yaml:6: the steps need each other in a circle: two → one → two",
    ),
    "a need that is nowhere": (
        "  - id: erase\n    action: erase\n    needs: [gate]\n",
        "erasure.yaml:7: erase needs 'gate', and there is no such step",
    ),
    "an after_same that is nowhere": (
        "  - id: erase\n    action: erase\n    after_same: [look]\n",
        "erasure.yaml:7: erase after same 'look', and there is no such step",
    ),
    "two steps of one name": (
        "  - {id: erase, action: erase}\n  - {id: erase, action: access}\n",
        "erasure.yaml:6: there are two steps named 'erase'",
    ),
    "a workflow that does not do what its right is about": (
        "  - {id: look, action: access}\n",
        "erasure.yaml:4: a workflow for erasure needs a step with action: erase",
    ),
    "a step that is both": (
        "  - {id: erase, action: erase, gate: approval}\n",
        "erasure.yaml:5: steps.0: say either action or gate",
    ),
    "a step that is neither": ("  - {id: erase}\n", "erasure.yaml:5: steps.0: say either action or gate"),
    "a gate on systems": (
        "  - {id: gate, gate: approval, systems: [crm]}\n",
        "erasure.yaml:5: steps.0: a gate is a step of the desk: leave systems out",
    ),
    "a check of nothing": (
        "  - {id: verify, action: verify}\n",
        "erasure.yaml:5: steps.0: a verify step says what it checks: with: {of: erase}",
    ),
    "an unknown action": ("  - {id: erase, action: obliterate}\n", "erasure.yaml:5: steps.0.action: "),
    "no steps": ("  []\n", "erasure.yaml:4: steps: "),
}


@pytest.mark.parametrize("kind", FAULTY_WORKFLOWS)
def test_a_fault_of_a_workflow_is_named_with_its_line(files: Files, kind: str) -> None:
    steps, expected = FAULTY_WORKFLOWS[kind]
    files.write("erasure.yaml", ERASURE + steps)
    found = files.faults()
    assert any(fault.startswith(expected) for fault in found), found


def test_two_workflows_for_one_right_are_a_fault(files: Files) -> None:
    files.write(
        "forget.yaml", ERASURE.replace("workflow: erasure", "workflow: forget") + "  - {id: e, action: erase}\n"
    )
    [fault] = files.faults()
    assert fault.startswith("forget.yaml:3: ")
    assert fault.endswith("erasure.yaml is for erasure as well")


def test_a_category_that_no_system_holds_is_a_fault(files: Files) -> None:
    files.write("categories.yaml", CATEGORIES + "  weather: [system.weather]\n")
    assert files.faults() == ["categories.yaml:3: no system holds data of the policy's category 'weather'"]


def test_a_workflow_whose_categories_nobody_holds_is_a_fault(files: Files) -> None:
    files.write(
        "erasure.yaml",
        ERASURE.replace("steps:", "categories: [system.weather]\nsteps:") + "  - {id: e, action: erase}\n",
    )
    assert "erasure.yaml:4: no system holds any data of these categories" in files.faults()


def test_a_missing_file_is_a_fault(files: Files) -> None:
    files.systems.unlink()
    (files.workflows / "regulations.yaml").unlink()
    assert sorted(files.faults()) == [
        "regulations.yaml:1: cannot be read: No such file or directory",
        "systems.yaml:1: cannot be read: No such file or directory",
    ]


def test_all_faults_of_all_files_are_told_at_once(files: Files) -> None:
    files.systems.write_text(
        "systems:\n  - {name: Crm, connector: scripted}\n  - {name: shop, connector: nonsense, x: 1}\n"
    )
    files.write("erasure.yaml", ERASURE + "  - {id: erase}\n")
    files.write("access.yaml", "workflow: access\nversion: 0\nright: acess\n")
    files.write("regulations.yaml", "regulations: {gdpr: {month: 1}}\n")
    found = {fault.split(": ")[0] for fault in files.faults()}
    assert {"systems.yaml:2", "systems.yaml:3", "erasure.yaml:5", "access.yaml:2", "access.yaml:3"} <= found
    assert "regulations.yaml:1" in found
    with pytest.raises(ConfigurationError) as caught:
        load(files.workflows, files.systems, {}, builtin=DESK)
    assert len(caught.value.faults) == len(files.faults())


def test_a_connector_whose_extra_is_missing_says_what_to_install(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN, "scripted", ("connector_not_there.module:Thing", "crm"))
    assert files.faults()[0] == (
        "systems.yaml:3: connector 'scripted' needs connector_not_there: pip install 'habeas[crm]'"
    )


def test_no_fault_shows_the_value_of_a_secret(files: Files) -> None:
    files.systems.write_text(SYSTEMS.replace("[user]", "{env: KEY}", 1))
    found = files.faults(KEY="hunter2")
    assert found
    assert "hunter2" not in "".join(found)


# The sources file. ----------------------------------------------------------------------------------------------------


def test_every_fault_of_the_sources_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(
        "sources:\n  - source: a\n  - {source: b, unsigned: allowed, rihgts: []}\n"
        "  - source: c\n    secrets: [{env: MISSING}]\n"
    )
    sources, faults = examine_sources(path, {})
    lines = [(f.line, f.text) for f in faults]
    assert sources is None
    assert (2, "sources.0: give at least one secret, or say 'unsigned: allowed'") in lines
    assert (3, "sources.1.rihgts: is not known here; is it misspelt?") in lines
    assert (5, "the environment variable MISSING is not set") in lines


def test_sources_that_share_a_name_are_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text("sources:\n  - {source: a, unsigned: allowed}\n  - {source: a, unsigned: allowed}\n")
    [fault] = examine_sources(path, {})[1]
    assert "a is listed twice" in fault.text
