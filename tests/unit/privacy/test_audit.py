"""The audit chain shows every change to what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.privacy import audit
from orchestrator.privacy.audit import GENESIS, Checkpoints, link, verify_chain, verify_checkpoint
from orchestrator.privacy.vault import MasterKeys

ENTRIES = st.lists(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3),
    min_size=2,
    max_size=6,
)


def chain(entries):
    previous, linked = GENESIS, []
    for entry in entries:
        previous = link(previous, entry)
        linked.append((entry, previous))
    return linked


@given(ENTRIES)
def test_an_untouched_chain_holds(entries):
    assert verify_chain(chain(entries)) is None


@given(ENTRIES, st.data())
def test_a_changed_entry_breaks_the_chain_where_it_stands(entries, data):
    linked = chain(entries)
    at = data.draw(st.integers(0, len(linked) - 1))
    linked[at] = ({**linked[at][0], "forged": True}, linked[at][1])
    broken = verify_chain(linked)
    assert broken is not None
    assert broken.position == at


@given(ENTRIES, st.data())
def test_a_dropped_entry_breaks_the_chain_where_the_next_stands(entries, data):
    linked = chain(entries)
    at = data.draw(st.integers(0, len(linked) - 2))
    del linked[at]
    broken = verify_chain(linked)
    assert broken is not None
    assert broken.position == at


def test_swapped_entries_break_the_chain():
    linked = chain([{"n": 1}, {"n": 2}, {"n": 3}])
    assert verify_chain([linked[1], linked[0], linked[2]]) is not None


def test_a_chain_can_be_checked_from_a_known_hash_on():
    linked = chain([{"n": 1}, {"n": 2}, {"n": 3}])
    assert verify_chain(linked[1:], start=linked[0][1]) is None


def test_an_entry_that_is_no_json_breaks_the_chain_instead_of_the_check():
    assert verify_chain([({"n": float("nan")}, GENESIS)]) is not None
    with pytest.raises(ValueError, match="JSON"):
        link(GENESIS, {"n": float("inf")})


def test_a_checkpoint_is_verified_with_the_public_key_and_only_as_it_was():
    masters = MasterKeys.parse(MasterKeys.generate("a"))
    signer = Checkpoints(masters)
    checkpoint = {"at": "2026-11-22T12:00:00Z", "heads": {"r1": "ab"}}
    signature = signer.sign(checkpoint)
    assert verify_checkpoint(checkpoint, signature, signer.public_key)
    assert not verify_checkpoint({**checkpoint, "heads": {"r1": "ac"}}, signature, signer.public_key)
    assert not verify_checkpoint(checkpoint, signature[:-1], signer.public_key)
    other = Checkpoints(MasterKeys.parse(MasterKeys.generate("a")))
    assert not verify_checkpoint(checkpoint, signature, other.public_key)


def test_checkpoints_from_before_a_rotation_can_still_be_verified():
    old, new = MasterKeys.generate("old"), MasterKeys.generate("new")
    signature = Checkpoints(MasterKeys.parse(old)).sign({"n": 1})
    keys = audit.public_keys(MasterKeys.parse(f"{new},{old}"))
    assert verify_checkpoint({"n": 1}, signature, keys["old"])
    assert not verify_checkpoint({"n": 1}, signature, keys["new"])


LOOKS_ALIKE = '"request":"","seq":0'
FACTS = st.recursive(
    st.integers() | st.text(max_size=8) | st.none() | st.just(LOOKS_ALIKE),
    lambda inner: st.dictionaries(st.sampled_from(["request", "seq", "what"]) | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(FACTS, st.text(max_size=8), st.uuids(), st.integers(1, 2**31))
def test_a_form_links_what_the_entry_itself_would(facts, what, request, seq):
    entry = {"at": "2026-01-01T00:00:00+00:00", "what": what, "ordinal": 1, "facts": facts}
    whole = {**entry, "request": str(request), "seq": seq}
    assert audit.Form(entry).link(GENESIS, str(request), seq) == link(GENESIS, whole)


def test_a_form_finds_its_place_beside_facts_that_look_like_it():
    facts = {"request": "", "seq": 0}
    entry = {"at": "now", "what": LOOKS_ALIKE, "ordinal": None, "facts": facts}
    assert audit.Form(entry).link(GENESIS, "r", 7) == link(GENESIS, {**entry, "request": "r", "seq": 7})
