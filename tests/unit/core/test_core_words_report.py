"""The core's words are the contract's words; and what is reported of several results."""

from __future__ import annotations

from datetime import date
from itertools import permutations

import pytest

from connectors import contract
from orchestrator.core import model, vocabulary
from orchestrator.core.report import WORST_FIRST, outcome_of, result_facts
from orchestrator.core.vocabulary import Outcome


@pytest.mark.parametrize("name", ["Action", "Outcome"])
def test_the_connector_contract_speaks_the_words_of_the_core(name: str) -> None:
    theirs, ours = getattr(contract, name), getattr(vocabulary, name)
    assert {(e.name, e.value) for e in theirs} == {(e.name, e.value) for e in ours}


def test_what_connectors_retain_is_what_the_core_reports() -> None:
    for name in ("Retention", "Residue"):
        assert getattr(contract, name).__slots__ == getattr(model, name).__slots__


def test_every_outcome_has_its_place_in_the_order_of_what_is_reported() -> None:
    assert set(WORST_FIRST) == set(Outcome)


@pytest.mark.parametrize(
    ("outcomes", "reported"),
    [
        ([], "no_match"),
        (["executed", "verified"], "verified"),
        (["executed", "retained", "verified"], "retained"),
        (["no_match", "executed"], "executed"),
        (["unsupported", "verified"], "unsupported"),
        (["residual", "verified"], "residual"),
    ],
)
def test_the_worst_of_several_outcomes_is_reported_and_proof_settles_what_was_executed(
    outcomes: list[str], reported: str
) -> None:
    for order in permutations(outcomes):
        assert outcome_of(model.Result(Outcome(o)) for o in order) == reported


def test_a_result_is_told_with_all_that_stays() -> None:
    result = model.Result(
        Outcome.RETAINED,
        {"orders": 2, "invoices": 1},
        (model.Retention("invoices", "tax", "§ 147 AO", 1, date(2036, 12, 31)), model.Retention("x", "y", "z", 1)),
        (model.Residue("backup", date(2026, 3, 1)),),
        note="a note",
    )
    assert result_facts(result) == {
        "outcome": "retained",
        "counts": {"invoices": 1, "orders": 2},
        "retained": [
            {"what": "invoices", "reason": "tax", "legal_basis": "§ 147 AO", "records": 1, "until": "2036-12-31"},
            {"what": "x", "reason": "y", "legal_basis": "z", "records": 1, "until": None},
        ],
        "residues": [{"where": "backup", "until": "2026-03-01"}],
        "note": "a note",
    }
    assert result_facts(model.Result(Outcome.NO_MATCH)) == {"outcome": "no_match", "counts": {}}


def test_an_identity_shows_its_value_nowhere() -> None:
    assert "ada" not in repr(model.Identity("email", "ada@example.org"))
    assert "ada" not in repr(contract.Identity("email", "ada@example.org"))
