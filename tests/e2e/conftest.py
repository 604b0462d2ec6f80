"""A real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.browser import Visit
from tests.support.person import Person
from tests.support.product import Product


@pytest.fixture(scope="module")
def browser(browser_program: Path) -> Iterator[Browser]:
    """Chromium or Chrome of this machine. CHROMIUM chooses one."""
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_program, args=["--no-sandbox", "--disable-gpu", *quiet]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(product: Product, browser: Browser) -> Iterator[Visit]:
    """Opens the page, signed in as somebody or not. What the page's own code did wrong fails the test."""
    errors: list[str] = []
    contexts = []

    def open_page(person: Person | None = None, conversation: str | None = None, **options: Any) -> Page:
        options = {"viewport": {"width": 1280, "height": 800}} | options
        context = browser.new_context(base_url=product.url, **options)
        contexts.append(context)
        context.set_default_timeout(15_000)
        if person is not None:
            cookies = [(cookie.name, cookie.value or "") for cookie in person.http.cookies.jar]
            context.add_cookies([{"name": name, "value": value, "url": product.url} for name, value in cookies])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(f"/#/c/{conversation}" if conversation else "/")
        if person is not None:
            expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
        return page

    yield open_page
    for context in contexts:
        context.close()
    # The browser itself reports refused requests (a wrong password) and cut connections; they are meant here.
    assert [error for error in errors if not error.startswith("Failed to load resource")] == []
