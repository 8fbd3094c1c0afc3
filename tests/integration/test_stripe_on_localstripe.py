"""The Stripe connector against localstripe, over HTTP. What localstripe lacks: ``tests/support/localstripe_server``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from connectors.contract import Action, Done, Fatal, Identity, Outcome
from connectors.payments.stripe import Stripe
from tests.support.localstripe_server import running_localstripe, wipe
from tests.support.stripe_world import Account, Collected, connector_at, perform, task

ADA = Identity("email", "ada@x.example")
BOB = Identity("email", "bob@x.example")
NOBODY = Identity("email", "nobody@x.example")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_localstripe() as url:
        yield url


@pytest.fixture
def account(server: str) -> Iterator[Account]:
    yield Account(server)
    wipe(server)


@pytest.fixture
def connector(server: str) -> Iterator[Stripe]:
    connector = connector_at(server)
    yield connector
    connector.close()


def done(result: object) -> Done:
    assert isinstance(result, Done), result
    return result


def test_a_person_found_by_address_is_every_customer_with_it(account: Account, connector: Stripe) -> None:
    first, second = account.person("ada@x.example"), account.person("ada@x.example")
    account.person("bob@x.example")

    result = done(perform(connector, task(Action.DISCOVER, ADA)))

    assert result.outcome is Outcome.EXECUTED
    assert set(result.found) == {Identity("stripe_customer_id", first), Identity("stripe_customer_id", second), ADA}


def test_a_person_found_by_customer_id_is_known_by_address_too(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example")

    result = done(perform(connector, task(Action.DISCOVER, Identity("stripe_customer_id", customer))))

    assert ADA in result.found


def test_an_address_is_found_in_the_case_it_was_typed_in_and_in_lower_case(account: Account, connector: Stripe) -> None:
    typed, lower = account.person("Ada@X.example"), account.person("ada@x.example")

    result = done(perform(connector, task(Action.DISCOVER, Identity("email", "Ada@X.example"))))

    assert {i.value for i in result.found if i.type == "stripe_customer_id"} == {typed, lower}


def test_more_customers_than_a_page_holds_are_all_found(account: Account, connector: Stripe) -> None:
    made = {account.person("ada@x.example") for _ in range(103)}

    result = done(perform(connector, task(Action.DISCOVER, ADA)))

    assert {i.value for i in result.found if i.type == "stripe_customer_id"} == made


def test_a_stranger_is_no_match(account: Account, connector: Stripe) -> None:
    account.person("ada@x.example")

    for identity in (NOBODY, Identity("stripe_customer_id", "cus_nobody"), Identity("stripe_customer_id", "..")):
        assert done(perform(connector, task(Action.ERASE, identity))).outcome is Outcome.NO_MATCH


def test_a_hash_is_not_called_a_stranger(account: Account, connector: Stripe) -> None:
    hashed = Identity("email", ADA.digest(), "sha256")

    assert done(perform(connector, task(Action.ERASE, hashed))).outcome is Outcome.UNSUPPORTED


def test_a_person_gets_all_that_is_held_and_of_a_card_only_its_last_digits(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example", phone="+49 30 1", address={"line1": "Main St 1", "city": "Berlin"})
    card = account.card(customer)
    charge = account.payment(customer, card)
    account.v1.refunds.create({"charge": charge, "amount": 200})
    _, invoice = account.subscription(customer, card)
    bob = account.person("bob@x.example")
    account.payment(bob, account.card(bob))

    call = Collected()
    result = done(perform(connector, task(Action.ACCESS, ADA), call))

    assert result.outcome is Outcome.EXECUTED
    assert result.counts == {kind: len(records) for kind, records in call.records.items()}
    assert call.records["customers"][0]["address"] == {"line1": "Main St 1", "city": "Berlin"}
    (method,) = call.records["payment_methods"]
    assert {k: method[k] for k in ("brand", "last4", "exp_month", "exp_year")} == {
        "brand": "visa",
        "last4": "4242",
        "exp_month": 4,
        "exp_year": 2031,
    }
    assert not {"card", "fingerprint"} & method.keys()
    assert charge in {c["id"] for c in call.records["charges"]}
    assert invoice in {i["id"] for i in call.records["invoices"]}
    assert [r["amount"] for r in call.records["refunds"]] == [200]
    assert len(call.records["subscriptions"]) == 1
    written = json.dumps(call.records)
    assert "bob@" not in written
    assert bob not in written
    assert "4242424242424242" not in written
    assert datetime.fromisoformat(method["created"]).tzinfo == UTC


def test_access_hands_out_only_the_categories_asked_for(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example", phone="+49 30 1")
    account.payment(customer, account.card(customer))

    call = Collected()
    perform(connector, task(Action.ACCESS, ADA, categories=frozenset({"user.contact"})), call)

    assert call.records.keys() == {"customers"}
    assert call.records["customers"][0]["phone"] == "+49 30 1"
    assert "name" not in call.records["customers"][0]


def test_more_charges_than_a_page_holds_are_all_gathered(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example")
    card = account.card(customer)
    made = {account.payment(customer, card, amount=100 + n) for n in range(104)}

    call = Collected()
    perform(connector, task(Action.ACCESS, ADA), call)

    assert {c["id"] for c in call.records["charges"]} == made


def test_an_erased_customer_is_gone_and_their_card_belongs_to_nobody(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example")
    card = account.card(customer)
    bob = account.person("bob@x.example")
    account.card(bob)
    before = account.picture(bob)

    result = done(perform(connector, task(Action.ERASE, ADA)))

    assert (result.outcome, result.counts) == (Outcome.EXECUTED, {"customers": 1, "payment_methods": 1})
    assert account.customer(customer) is None
    detached = account.v1.payment_methods.retrieve(card)
    assert detached.customer is None
    assert not any(detached.billing_details.to_dict().values())
    assert account.picture(bob) == before
    verified = perform(connector, task(Action.VERIFY, ADA, Identity("stripe_customer_id", customer)))
    assert done(verified).outcome is Outcome.VERIFIED


def test_invoices_and_payments_stay_and_the_answer_says_until_when_and_why(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example")
    card = account.card(customer)
    _, invoice = account.subscription(customer, card)
    day = datetime.now(UTC).date()

    result = done(perform(connector, task(Action.ERASE, ADA), Collected(now=datetime.now(UTC))))

    assert result.outcome is Outcome.RETAINED
    assert result.counts == {"customers": 1, "payment_methods": 1, "subscriptions": 1}
    assert [(r.what, r.records) for r in result.retained] == [("invoices", 1), ("charges", 1)]
    assert {r.until.year for r in result.retained if r.until} == {day.year + 10}
    assert {r.legal_basis for r in result.retained} == {"GDPR Art. 17(3)(b): legal obligation"}
    assert [i.id for i in account.v1.invoices.list({}).data] == [invoice]


def test_a_running_subscription_ends_with_its_customer(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example")
    subscription, _ = account.subscription(customer, account.card(customer))

    result = done(perform(connector, task(Action.ERASE, ADA)))

    assert result.counts["subscriptions"] == 1
    assert account.v1.subscriptions.retrieve(subscription).status == "canceled"


def test_erasing_twice_changes_nothing_more(account: Account, connector: Stripe) -> None:
    account.person("ada@x.example")
    erasure = task(Action.ERASE, ADA)

    assert done(perform(connector, erasure)).outcome is Outcome.EXECUTED
    assert done(perform(connector, erasure)).outcome is Outcome.NO_MATCH


def test_an_erasure_of_contact_data_keeps_the_customer_and_the_rest(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example", phone="+49 30 1", address={"line1": "Main St 1", "city": "Berlin"})
    account.card(customer)
    scoped = {"categories": frozenset({"user.contact"})}
    by_id = Identity("stripe_customer_id", customer)

    assert isinstance(perform(connector, task(Action.VERIFY, by_id, **scoped)), Fatal)
    assert done(perform(connector, task(Action.ERASE, by_id, **scoped))).outcome is Outcome.EXECUTED

    left = account.customer(customer)
    assert left
    assert (left["name"], left["email"], left["phone"], left["address"]) == ("Ada Lovelace", "", "", "")
    assert len(account.v1.payment_methods.list({"customer": customer, "type": "card"}).data) == 1
    assert done(perform(connector, task(Action.VERIFY, by_id, **scoped))).outcome is Outcome.VERIFIED


def test_an_erasure_of_what_stripe_cannot_take_away_alone_is_unsupported(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example")
    scope = frozenset({"user.behavior"})

    assert done(perform(connector, task(Action.ERASE, ADA, categories=scope))).outcome is Outcome.UNSUPPORTED
    assert account.customer(customer)


def test_a_correction_reaches_name_contact_and_address_and_nothing_else(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example", address={"line1": "Main St 1", "city": "Berlin", "country": "DE"})
    corrections = {
        "user.name": "Ada King",
        "user.contact.phone_number": "+44 20 7",
        "user.contact.address.city": "Potsdam",
        "user.demographic.date_of_birth": "1815-12-10",
    }
    by_id = Identity("stripe_customer_id", customer)

    assert isinstance(
        perform(connector, task(Action.VERIFY, by_id, corrections=corrections, options={"of": "rectify"})), Fatal
    )
    assert done(perform(connector, task(Action.RECTIFY, by_id, corrections=corrections))).counts == {"customers": 1}

    corrected = account.customer(customer)
    assert corrected
    assert (corrected["name"], corrected["phone"], corrected["email"]) == ("Ada King", "+44 20 7", "ada@x.example")
    assert corrected["address"] == {"line1": "Main St 1", "city": "Potsdam", "country": "DE"}
    verify = task(Action.VERIFY, by_id, corrections=corrections, options={"of": "rectify"})
    assert done(perform(connector, verify)).outcome is Outcome.VERIFIED


def test_a_correction_of_what_stripe_does_not_hold_is_unsupported(account: Account, connector: Stripe) -> None:
    account.person("ada@x.example")
    corrections = {"user.demographic.date_of_birth": "1815-12-10"}

    assert done(perform(connector, task(Action.RECTIFY, ADA, corrections=corrections))).outcome is Outcome.UNSUPPORTED


def test_a_restricted_and_an_objecting_customer_are_marked_and_keep_their_marks(
    account: Account, connector: Stripe
) -> None:
    customer = account.person("ada@x.example")
    purposes = frozenset({"marketing", "profiling"})

    assert done(perform(connector, task(Action.RESTRICT, ADA))).outcome is Outcome.EXECUTED
    assert done(perform(connector, task(Action.SUPPRESS, ADA, purposes=purposes))).outcome is Outcome.EXECUTED

    marked = account.customer(customer)
    assert marked
    assert marked["metadata"] == {
        "shop": "1",
        "habeas_restricted": "true",
        "habeas_suppressed_marketing": "true",
        "habeas_suppressed_profiling": "true",
    }
    for of, more in (("restrict", {}), ("suppress", {"purposes": purposes})):
        verify = task(Action.VERIFY, ADA, options={"of": of}, **more)
        assert done(perform(connector, verify)).outcome is Outcome.VERIFIED
    missing = task(Action.VERIFY, ADA, options={"of": "suppress"}, purposes=frozenset({"ads"}))
    assert isinstance(perform(connector, missing), Fatal)


def test_an_objection_to_everything_is_marked_as_such(account: Account, connector: Stripe) -> None:
    customer = account.person("ada@x.example")

    perform(connector, task(Action.SUPPRESS, ADA))

    marked = account.customer(customer)
    assert marked
    assert marked["metadata"]["habeas_suppressed_all"] == "true"


def test_an_erasure_that_does_not_hold_is_not_verified(account: Account, connector: Stripe) -> None:
    account.person("ada@x.example")

    result = perform(connector, task(Action.VERIFY, ADA))

    assert isinstance(result, Fatal)
    assert "ada@" not in str(result)
