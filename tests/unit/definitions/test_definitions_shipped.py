"""The six shipped workflows, each planned against the same four systems."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from connectors import registry
from connectors.desk import Desk, DeskConfig
from orchestrator.core.model import Clock, Plan
from orchestrator.core.planner import plan
from orchestrator.core.vocabulary import Right
from orchestrator.definitions.loader import Definitions, load
from tests.support import scripted
from tests.support.runs import an_ask, table
from tests.support.scripted import system
from tests.support.worlds import write

SHIPPED = Path(__file__).parents[3] / "workflows"
EVERYTHING = [
    "user.account", "user.unique_id", "user.authorization", "user.name", "user.contact", "user.demographic",
    "user.content", "user.payment", "user.device", "user.behavior", "user.location", "user.social",
    "user.privacy_preferences",
]  # fmt: skip


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Definitions:
    """users (knows everybody), logs (found by ip), pay (can't be restricted), ads (device data alone)."""
    monkeypatch.setitem(registry.BUILT_IN, scripted.NAME, scripted.TARGET)
    systems = [
        system("users", discovers=["user_id", "ip"], categories=EVERYTHING, erase_after=["pay"]),
        system("logs", identified_by=["ip"], actions=["access", "erase", "verify"], categories=["user.device"]),
        system("pay", actions=["discover", "access", "rectify", "erase", "suppress"], categories=["user.payment"]),
        system("ads", identified_by=["user_id"], categories=["user.device"]),
    ]
    shutil.copytree(SHIPPED, tmp_path / "workflows")
    path = write(tmp_path / "systems.yaml", {"systems": systems})
    return load(tmp_path / "workflows", path, {}, builtin={"desk": Desk("desk", DeskConfig())})


def planned(definitions: Definitions, right: Right, *, verified: bool = True) -> Plan:
    ask = an_ask(right, verified=verified)
    return plan(ask, definitions.workflows[right], definitions.systems, Clock("gdpr", months=1))


FOUND = {"discover@ads", "discover@pay", "discover@users"}
DISCOVERY = {"discover@ads": {"discover@users"}, "discover@pay": set(), "discover@users": set()}
HELPED = {"ads": {"discover@ads", "discover@users"}, "logs": {"discover@users"}, "pay": {"discover@pay"}}
HELPED["users"] = {"discover@users"}

EXPECTED: dict[Right, dict[str, set[str]]] = {
    Right.ACCESS: {
        **DISCOVERY,
        **{f"gather@{name}": needs for name, needs in HELPED.items()},
        "package@package": {"gather@ads", "gather@logs", "gather@pay", "gather@users"},
    },
    # Device data is not what a person provided; what users holds of it goes with the rest.
    Right.PORTABILITY: {
        "discover@pay": set(),
        "discover@users": set(),
        "gather@pay": {"discover@pay"},
        "gather@users": {"discover@users"},
        "package@package": {"gather@pay", "gather@users"},
    },
    Right.ERASURE: {
        **DISCOVERY,
        **{f"erase@{name}": needs for name, needs in HELPED.items()},
        "erase@users": {"discover@users", "erase@ads", "erase@logs", "erase@pay"},
        "verify@ads": {"erase@ads"},
        "verify@logs": {"erase@logs"},
        "verify@users": {"erase@users"},
    },
    **{
        right: {
            **DISCOVERY,
            **{f"{action}@{name}": needs for name, needs in HELPED.items()},
            **{f"verify@{name}": {f"{action}@{name}"} for name in ("ads", "logs", "users")},
        }
        for right, action in {
            Right.RECTIFICATION: "rectify",
            Right.RESTRICTION: "restrict",
            Right.OBJECTION: "suppress",
        }.items()
    },
}

ARTICLES = {"access": 15, "rectification": 16, "erasure": 17, "restriction": 18, "portability": 20, "objection": 21}
UNSUPPORTED = {
    Right.RECTIFICATION: {"rectify@logs"},
    Right.RESTRICTION: {"restrict@logs", "restrict@pay"},
    Right.OBJECTION: {"suppress@logs"},
}


@pytest.mark.parametrize("right", Right)
def test_a_shipped_workflow_gives_these_steps(definitions: Definitions, right: Right) -> None:
    made = planned(definitions, right)
    assert table(made) == EXPECTED[right]
    settled = {f"{s.name}@{s.system}" for s in made.steps if s.result is not None}
    assert settled == UNSUPPORTED.get(right, set())
    for step in made.steps:
        if step.result is not None:
            assert step.result.note == f"{step.system} has no way to {step.action}"


@pytest.mark.parametrize("right", Right)
def test_without_evidence_everything_waits_for_the_persons_identity(definitions: Definitions, right: Right) -> None:
    steps = table(planned(definitions, right, verified=False))
    assert steps["identity@desk"] == set()
    first = [name for name, needs in steps.items() if needs <= {"identity@desk"} and name != "identity@desk"]
    assert first
    assert all(steps[name] == {"identity@desk"} for name in first)


@pytest.mark.parametrize("right", Right)
def test_a_shipped_workflow_keeps_sealed_data_for_thirty_days_and_has_a_description(
    definitions: Definitions, right: Right
) -> None:
    assert definitions.workflows[right].keep.days == 30
    assert f"Art. {ARTICLES[right]}" in (SHIPPED / f"{right}.yaml").read_text()
