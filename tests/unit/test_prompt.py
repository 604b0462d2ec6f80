"""Which messages of a thread go into the prompt, and what its title is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.model.prompt import Message, attributed, fit, merged
from deployments.model.titles import LONGEST, trimmed


def render(messages: Sequence[Message]) -> list[int]:
    return [ord(letter) for message in messages for letter in message["content"]]


def alternating(contents: list[str]) -> list[Message]:
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(contents)]


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=15), st.integers(1, 100))
def test_latest_messages_are_kept_whole(contents: list[str], limit: int) -> None:
    history = alternating(contents)
    tokens = fit("", history, render, limit)
    suffixes = [render(history[start:]) for start in range(len(history))]
    assert tokens in suffixes
    assert len(tokens) <= limit or tokens == suffixes[-1]


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=40), st.integers(1, 300))
def test_no_more_is_left_out_than_must_be(contents: list[str], limit: int) -> None:
    history = alternating(contents)
    allowed = [start for start in range(len(history)) if start % 2 == 0 or start == len(history) - 1]
    prompts = [render(history[start:]) for start in allowed]
    assert fit("", history, render, limit) == next((p for p in prompts if len(p) <= limit), prompts[-1])


def test_little_more_of_a_long_thread_is_rendered_than_fits() -> None:
    rendered: list[int] = []

    def count(messages: Sequence[Message]) -> list[int]:
        rendered.append(sum(len(message["content"]) for message in messages))
        return render(messages)

    assert len(fit("", alternating(["twenty letters long."] * 10_000), count, 2000)) == 2000
    assert sum(rendered) < 20 * 2000


def test_system_prompt_is_never_left_out() -> None:
    tokens = fit("SYS", alternating(["old", "old", "new"]), render, 6)
    assert "".join(map(chr, tokens)) == "SYSnew"


def test_prompt_does_not_begin_with_an_answer() -> None:
    tokens = fit("", alternating(["one", "two", "three"]), render, 8)
    assert "".join(map(chr, tokens)) == "three"


def test_neighbours_of_one_role_become_one_message() -> None:
    history = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    assert merged([*history, {"role": "assistant", "content": "three"}]) == [
        {"role": "user", "content": "one\n\ntwo"},
        {"role": "assistant", "content": "three"},
    ]
    assert history[0]["content"] == "one"


def test_what_people_say_begins_with_the_name_where_one_is_given() -> None:
    said = [
        {"role": "user", "content": "Hello", "name": "Ann"},
        {"role": "assistant", "content": "Hi", "name": None},
        {"role": "user", "content": "And me?", "name": None},
    ]
    assert [message["content"] for message in attributed(said)] == ["Ann: Hello", "Hi", "And me?"]


def test_what_was_thought_is_not_read_again() -> None:
    said = [
        {"role": "user", "content": "<think>Sum?</think>", "name": None},
        {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour.", "name": None},
        {"role": "user", "content": "Sure?", "name": None},
        {"role": "assistant", "content": "<think>They ask", "name": None},
        {"role": "user", "content": "Well?", "name": None},
    ]
    contents = [message["content"] for message in attributed(said)]
    assert contents == ["<think>Sum?</think>", "Four.", "Sure?", "Well?"]


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ('"Three Colours"', "Three Colours"),
        ("\n\n## Three  colours.\nAnd more", "Three colours"),
        ("**Colours**", "Colours"),
        (
            "The sky has many colours, and the one that is the most, as people say, is blue",
            "The sky has many colours, and the one that is the most, as…",
        ),
        ("x" * 70, "x" * 59 + "…"),
        (" \n\t", None),
        ('""', None),
        ("\0", None),
    ],
)
def test_title_is_what_the_model_wrote_without_decoration(written: str, title: str | None) -> None:
    assert trimmed(written) == title


@given(st.text(max_size=400))
def test_title_is_one_short_line(written: str) -> None:
    title = trimmed(written)
    assert title is None or (0 < len(title) <= LONGEST and len(title.splitlines()) == 1 and title == title.strip())
