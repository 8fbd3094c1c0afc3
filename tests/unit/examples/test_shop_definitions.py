"""The shop's systems and sources files are ones that Habeas takes, and hold what the policy speaks of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples.shop.world import SOURCES, SYSTEMS, Shop
from orchestrator.core.vocabulary import Right
from orchestrator.definitions.loader import Definitions, examine, examine_sources

WORKFLOWS = Path(__file__).parents[3] / "workflows"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    shop = Shop.create(tmp_path, "postgresql+psycopg://shop@127.0.0.1/shop", people=60)
    return {**shop.environment(), "SHOP_STRIPE_URL": "http://127.0.0.1:1"}


@pytest.fixture
def definitions(environment: dict[str, str]) -> Definitions:
    made, faults = examine(WORKFLOWS, SYSTEMS, environment, builtin={})
    assert faults == []
    assert made is not None
    return made


def test_the_files_refer_to_nothing_that_the_shop_does_not_tell(environment: dict[str, str]) -> None:
    named = set(re.findall(r"\{env: (SHOP_\w+)\}", SYSTEMS.read_text() + SOURCES.read_text()))
    assert named == environment.keys()


def test_every_category_of_the_policy_is_held_by_some_system(definitions: Definitions) -> None:
    for name, keys in definitions.categories.items():
        holding = {
            system.name
            for system in definitions.systems.values()
            for held in system.categories
            if any(held == key or held.startswith(key + ".") for key in keys)
        }
        assert holding, name


def test_the_user_database_finds_every_identity_that_the_other_systems_are_asked_by(definitions: Definitions) -> None:
    users = definitions.systems["users"]
    for name in ("logs", "payments", "analytics"):
        assert definitions.systems[name].identified_by <= users.discovers, name
        assert name in users.erase_after


def test_the_account_service_may_ask_for_every_right_and_the_old_crm_for_access_alone(
    environment: dict[str, str],
) -> None:
    sources, faults = examine_sources(SOURCES, environment)
    assert faults == []
    assert sources is not None
    service, crm = sources.get("/shop/account-service"), sources.get("/shop/legacy-crm")
    assert service is not None
    assert crm is not None
    assert (service.rights, len(service.keys), service.trusted_to_verify) == (frozenset(Right), 1, True)
    assert (crm.rights, len(crm.keys), crm.trusted_to_verify) == (frozenset({Right.ACCESS}), 0, False)


@pytest.mark.parametrize(("people", "requests"), [(11, None), (60, 5)])
def test_a_shop_too_small_to_show_anything_is_refused(tmp_path: Path, people: int, requests: int | None) -> None:
    with pytest.raises(ValueError, match="at least 12 people and 6 requests"):
        Shop.create(tmp_path, "postgresql://127.0.0.1/shop", people, requests=requests)
