"""API keys as text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.keys.key_format import is_key, key_hash, key_prefix, new_key
from deployments.sessions import token_hash


def test_a_new_key_is_one_and_differs_from_all_others() -> None:
    keys = {new_key("a session", None) for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"rgpt_[0-9A-Za-z]{39}", key) and is_key(key) for key in keys)


def test_a_repeated_request_gets_the_same_key_in_its_session_only() -> None:
    once = ["a key", "a fingerprint"]
    assert new_key("a session", once) == new_key("a session", once)
    assert new_key("a session", once) != new_key("another session", once)
    assert new_key("a session", once) != new_key("a session", ["another key", "a fingerprint"])


@given(st.integers(0, 43), st.characters(codec="ascii"))
def test_one_wrong_character_is_noticed(place: int, wrong: str) -> None:
    key = new_key("a session", ["a key", "a fingerprint"])
    changed = key[:place] + wrong + key[place + 1 :]
    assert is_key(changed) == (changed == key)


@pytest.mark.parametrize("text", ["", "rgpt_", "sk-proj-123", "rgpt_" + "0" * 39, "rgpt_" + "é" * 39, "x" * 5000])
def test_other_text_is_no_key(text: str) -> None:
    assert not is_key(text)


def test_what_is_shown_of_a_key_leaves_160_bits() -> None:
    key = new_key("a session", None)
    assert key.startswith(key_prefix(key))
    # The checksum follows from the rest.
    assert 62 ** (len(key) - len(key_prefix(key)) - 6) > 2**160


def test_a_key_does_not_pass_for_a_session() -> None:
    key = new_key("a session", None)
    assert key_hash(key) != token_hash(key)
