"""What the Stripe connector says of itself, without a server."""

from __future__ import annotations

import fideslang.default_taxonomy as taxonomy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contract import Action, Task
from connectors.payments.stripe import Stripe, StripeConfig
from connectors.payments.stripe_records import ADDRESS, COLLECTIONS, FIELDS, changes_for, differs

texts = st.text(min_size=1, max_size=8)
held = st.fixed_dictionaries({field: st.none() | texts for field in ("name", "email", "phone")}).flatmap(
    lambda fields: st.fixed_dictionaries(
        {"address": st.none() | st.dictionaries(st.sampled_from([*ADDRESS.values()]), texts)}
    ).map(lambda address: {**fields, **address})
)
corrections = st.dictionaries(st.sampled_from([*FIELDS, *ADDRESS]), texts | st.just(""))


def test_every_category_is_in_the_fides_taxonomy() -> None:
    known = {category.fides_key for category in taxonomy.DEFAULT_TAXONOMY.data_category}
    stripe = Stripe("payments", StripeConfig.model_validate({"api_key": "sk_test_x"}))

    assert stripe.categories() <= known
    assert set(COLLECTIONS.values()) <= stripe.categories()
    assert stripe.supports() == set(Action) - {Action.GATE, Action.PACKAGE}


@given(customer=held, values=corrections)
def test_what_a_correction_writes_is_what_verification_looks_for(
    customer: dict[str, object], values: dict[str, str]
) -> None:
    changes = changes_for(values, customer)

    assert not differs(changes_for(values, {**customer, **changes}), {**customer, **changes})


@given(customer=held, values=corrections)
def test_a_correction_keeps_the_parts_of_an_address_that_it_does_not_name(
    customer: dict[str, object], values: dict[str, str]
) -> None:
    before = customer["address"] if isinstance(customer["address"], dict) else {}
    after = changes_for(values, customer).get("address", before) or {}

    for category, part in ADDRESS.items():
        assert (after.get(part) or "") == values.get(category, before.get(part) or "")


@pytest.mark.parametrize("category", ["user", "user.contact", "user.contact.address"])
def test_a_parent_category_covers_the_fields_below_it(category: str) -> None:
    scoped = Task("r/1", Action.ERASE, (), frozenset({category}))

    assert all(scoped.covers(part) for part in ADDRESS)
