"""What tests do with the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.support.person import Person

ANSWER_MS = 60_000
Visit = Callable[..., Page]


def sign_in(page: Page, name: str, password: str) -> None:
    form = page.get_by_test_id("login-form")
    form.get_by_label("E-mail or user name").fill(name)
    form.get_by_label("Password").fill(password)
    form.get_by_role("button", name="Sign in").click()


def answer(page: Page) -> Any:
    """The last message of the assistant."""
    return page.locator("[data-testid=message][data-role=assistant]").last


def text_of(message: Any) -> str:
    return message.get_by_test_id("content").evaluate("node => node.textContent")


def send(page: Page, text: str) -> None:
    page.get_by_test_id("composer").fill(text)
    page.get_by_test_id("composer").press("Enter")


def wait_for_text(page: Page, message: Any, characters: int) -> str:
    """Text of a message that is being written, as soon as it is so long."""
    node = message.get_by_test_id("content").element_handle()
    page.wait_for_function("([node, length]) => node.textContent.length >= length", arg=[node, characters])
    return text_of(message)


def expect_done(message: Any) -> str:
    """Waits for the end of an answer; its text."""
    expect(message).to_have_attribute("data-state", "done", timeout=ANSWER_MS)
    return text_of(message)


def cancel(person: Person, message: Any) -> None:
    """Ends an answer, if it is still being written: its rest is of no interest."""
    person.call("POST", f"/api/messages/{message.get_attribute('data-message-id')}/cancel", {}, 202)


def stored(person: Person, message: Any) -> dict[str, Any]:
    """What the server has of a shown message."""
    message_id = message.get_attribute("data-message-id")
    root_id = message.locator("xpath=ancestor::section").get_attribute("data-root-id")
    return person.message(root_id, message_id)


def finish(person: Person, conversation: str) -> dict[str, Any]:
    """A question with its finished answer, made without the page."""
    posted = person.ask(conversation, "Say hello.")
    person.follow(conversation, posted["cursor"])
    return posted
