"""What is sealed opens with the same key for the same place, and in no other case."""

from __future__ import annotations

import hashlib
import pickle
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Identity
from orchestrator.errors import ConfigurationError, VaultError
from orchestrator.privacy.ledger import Ledger
from orchestrator.privacy.vault import MasterKeys, Vault

FIRST, SECOND = MasterKeys.generate("2026a"), MasterKeys.generate("2026b")
VAULT = Vault(MasterKeys.parse(FIRST))
KEY, WRAPPED = VAULT.new_request_key("r1")


@given(st.binary(max_size=500), st.text(max_size=20))
def test_what_was_sealed_opens_for_the_same_place(data, place):
    assert KEY.open(KEY.seal(data, place), place) == data


@given(st.binary(max_size=50), st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_found_out(data, position, flip):
    sealed = bytearray(KEY.seal(data, "p"))
    sealed[position % len(sealed)] ^= flip
    with pytest.raises(VaultError):
        KEY.open(bytes(sealed), "p")


@given(st.integers(0, 200), st.integers(1, 255))
def test_any_changed_byte_of_a_wrapped_key_is_found_out(position, flip):
    wrapped = bytearray(WRAPPED)
    wrapped[position % len(wrapped)] ^= flip
    with pytest.raises(VaultError):
        VAULT.unwrap("r1", bytes(wrapped))


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_but_a_vault_error(data):
    for call in (lambda: KEY.open(data, "p"), lambda: VAULT.unwrap("r1", data), lambda: VAULT.rewrap("r1", data)):
        with pytest.raises(VaultError):
            call()


def test_sealed_data_does_not_open_for_another_place_or_under_another_key():
    sealed = KEY.seal(b"x", "r1/identities")
    for key, place in ((KEY, "r1/payload"), (VAULT.new_request_key("r1")[0], "r1/identities")):
        with pytest.raises(VaultError):
            key.open(sealed, place)


def test_the_same_text_sealed_twice_looks_different():
    assert KEY.seal(b"x", "p") != KEY.seal(b"x", "p")


def test_a_wrapped_key_opens_for_its_request_alone():
    assert VAULT.unwrap("r1", WRAPPED).open(KEY.seal(b"x", "p"), "p") == b"x"
    with pytest.raises(VaultError, match="another request"):
        VAULT.unwrap("r2", WRAPPED)


@pytest.mark.parametrize("gone", [None, b""])
def test_a_shredded_key_says_so(gone):
    with pytest.raises(VaultError, match="destroyed"):
        VAULT.unwrap("r1", gone)


def test_after_rotation_old_keys_open_and_are_wrapped_anew_until_the_old_master_can_go():
    both = Vault(MasterKeys.parse(f"{SECOND}\n# the old one\n{FIRST}"))
    wrapped = both.rewrap("r1", WRAPPED)
    assert wrapped is not None
    assert both.rewrap("r1", wrapped) is None
    new = Vault(MasterKeys.parse(SECOND))
    assert new.unwrap("r1", wrapped).open(KEY.seal(b"x", "p"), "p") == b"x"
    with pytest.raises(VaultError, match="not configured"):
        new.unwrap("r1", WRAPPED)


@pytest.mark.parametrize(
    "text",
    ["", "x", "a:b", "a:AAAA", f"{FIRST},{FIRST}", "bad id:" + FIRST.split(":")[1]],
    ids=["empty", "no id", "not base64", "too short", "twice", "bad id"],
)
def test_unusable_master_keys_are_refused_without_showing_them(text):
    with pytest.raises(ConfigurationError) as caught:
        MasterKeys.parse(text)
    assert FIRST.split(":")[1] not in str(caught.value)


def test_master_keys_are_read_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"{SECOND}\n{FIRST}\n")
    path.chmod(stat.S_IRUSR)
    assert MasterKeys.read(path).ids() == ("2026b", "2026a")
    with pytest.raises(ConfigurationError, match="can't be read"):
        MasterKeys.read(tmp_path / "missing")


def test_keys_are_neither_shown_nor_pickled():
    masters = MasterKeys.parse(FIRST)
    assert repr(KEY) == "RequestKey(…)"
    assert FIRST.split(":")[1] not in repr(masters) + repr(VAULT) + repr(Ledger(masters))
    for value in (KEY, masters):
        with pytest.raises(VaultError):
            pickle.dumps(value)


# The ledger. ---------------------------------------------------------------------------------------------------------

EMAIL = Identity("email", "ada@example.org")


def test_a_person_is_recognised_whether_named_raw_or_hashed():
    ledger = Ledger(MasterKeys.parse(FIRST))
    hashed = Identity("email", hashlib.sha256(b"ada@example.org").hexdigest(), "sha256")
    assert ledger.hash(EMAIL) == ledger.hash(hashed)
    assert ledger.hash(EMAIL) != ledger.hash(Identity("user_id", "ada@example.org"))


def test_a_person_is_recognised_after_the_master_key_was_rotated():
    old, both = Ledger(MasterKeys.parse(FIRST)), Ledger(MasterKeys.parse(f"{SECOND},{FIRST}"))
    assert old.hash(EMAIL) in both.candidates(EMAIL)
    assert both.hash(EMAIL) != old.hash(EMAIL)
    assert old.hash_body("ab") in both.body_candidates("ab")
