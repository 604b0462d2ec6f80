"""The page in a real browser, against the running product."""

from __future__ import annotations

import re

from playwright.sync_api import Page, Route, expect

from tests.support.browser import (
    Visit,
    answer,
    cancel,
    expect_done,
    finish,
    send,
    sign_in,
    stored,
    wait_for_text,
)
from tests.support.person import PASSWORD, Person
from tests.support.product import Product

LONG_QUESTION = "Write a long story about a ship and its crew."


def test_setup_form_leads_to_sign_in_where_there_is_an_account_already(visit: Visit) -> None:
    page = visit()
    page.route("**/api/setup", lambda route: _not_set_up(route))
    page.reload()
    form = page.get_by_test_id("setup-form")
    form.get_by_label("User name").fill("second")
    form.get_by_label("E-mail").fill("second@example.org")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("alert")).to_contain_text("This service is set up already")
    expect(page.get_by_test_id("login-form")).to_be_visible()


def _not_set_up(route: Route) -> None:
    if route.request.method == "GET":
        route.fulfill(json={"is_setup": False})
    else:
        route.continue_()


def test_setup_form_says_how_long_a_password_must_be_and_sends_no_shorter_one(visit: Visit) -> None:
    page = visit()
    page.route("**/api/setup", lambda route: _not_set_up(route))
    page.reload()
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    form = page.get_by_test_id("setup-form")
    form.get_by_label("User name").fill("second")
    form.get_by_label("E-mail").fill("second@example.org")
    password = form.get_by_label("Password")
    password.press_sequentially("short")
    expect(password).to_have_accessible_description("At least 8 characters.")
    form.get_by_role("button", name="Create account").click()
    expect(password).to_be_focused()
    assert password.evaluate("node => node.validity.tooShort")
    assert posts == []


def test_wrong_password_is_answered_in_plain_words(visit: Visit, person: Person) -> None:
    page = visit()
    sign_in(page, person.name, "not the password")
    expect(page.get_by_role("alert")).to_contain_text("The name or the password is wrong.")


def test_first_visit_to_first_answer_shows_tokens_as_they_come_and_no_error(visit: Visit, person: Person) -> None:
    page = visit()
    console: list[str] = []
    page.on("console", lambda line: console.append(line.text))
    page.reload()
    sign_in(page, person.name, PASSWORD)
    page.get_by_label("First message").fill(LONG_QUESTION)
    page.get_by_label("First message").press("Enter")
    length = 0
    for _ in range(5):
        length = len(wait_for_text(page, answer(page), length + 1))
    assert answer(page).get_attribute("data-state") == "streaming"
    answer(page).get_by_test_id("stop").click()
    shown = expect_done(answer(page))
    assert shown == stored(person, answer(page))["content"]
    expect(page.get_by_role("heading", name=LONG_QUESTION)).to_be_visible()
    expect(page.get_by_test_id("conversation-list").get_by_role("link")).to_have_attribute("aria-current", "page")
    expect(page.locator("#announcer")).to_contain_text(" ".join(shown.split())[:40])
    assert console == []


def test_reload_in_the_middle_of_an_answer_continues_it(visit: Visit, person: Person) -> None:
    page = visit(person, person.converse())
    send(page, LONG_QUESTION)
    before = wait_for_text(page, answer(page), 80)
    page.reload()
    at_once = wait_for_text(page, answer(page), len(before))
    assert answer(page).get_attribute("data-state") == "streaming"
    assert at_once.startswith(before)
    wait_for_text(page, answer(page), len(at_once) + 80)
    answer(page).get_by_test_id("stop").click()
    shown = expect_done(answer(page))
    assert shown.startswith(at_once)
    assert shown == stored(person, answer(page))["content"]
    expect(page.get_by_test_id("message")).to_have_count(2)


def test_stopped_answer_keeps_what_was_shown(visit: Visit, person: Person) -> None:
    page = visit(person, person.converse())
    send(page, LONG_QUESTION)
    seen = wait_for_text(page, answer(page), 40)
    answer(page).get_by_test_id("stop").click()
    shown = expect_done(answer(page))
    expect(answer(page)).to_contain_text("Stopped")
    expect(answer(page).get_by_test_id("stop")).to_have_count(0)
    expect(page.get_by_test_id("send")).to_be_enabled()
    assert shown.startswith(seen)
    assert stored(person, answer(page))["finish_reason"] == "cancelled"


def test_next_message_waits_for_the_answer_before_it(visit: Visit, person: Person) -> None:
    page = visit(person, person.converse())
    send(page, LONG_QUESTION)
    wait_for_text(page, answer(page), 1)
    send(page, "And then?")
    expect(page.get_by_text("You can send when the answer is complete")).to_be_visible()
    answer(page).get_by_test_id("stop").click()
    expect_done(answer(page))
    page.get_by_test_id("composer").press("Enter")
    expect(page.get_by_test_id("message")).to_have_count(4)
    cancel(person, answer(page))


def test_reply_to_an_earlier_message_branches_off(visit: Visit, person: Person) -> None:
    conversation = person.converse()
    first = finish(person, conversation)
    later = person.reply(first["assistant_message_id"], "Say goodbye.")
    person.follow(conversation, later["cursor"])
    page = visit(person, conversation)
    earlier = page.locator(f"[data-message-id='{first['assistant_message_id']}']")
    earlier.get_by_test_id("reply").click()
    expect(page.get_by_text("Replying to Assistant")).to_be_visible()
    expect(page.get_by_test_id("composer")).to_be_focused()
    send(page, "Say hello again.")
    branch = page.get_by_test_id("message").filter(has_text="Say hello again.").first
    expect(branch).to_contain_text("in reply to Assistant")
    expect(branch).to_have_attribute("data-level", "1")
    assert stored(person, branch)["path"] == [1, 1, 2]
    expect(page.get_by_text("Replying to")).to_be_hidden()
    cancel(person, answer(page))


def test_new_thread_begins_beside_the_old_one(visit: Visit, person: Person) -> None:
    conversation = person.converse()
    finish(person, conversation)
    page = visit(person, conversation)
    page.get_by_test_id("new-thread").click()
    send(page, "Say good morning.")
    expect(page.get_by_role("region", name="Thread 2").get_by_test_id("message")).to_have_count(2)
    cancel(person, answer(page))


def test_person_added_in_the_people_panel_sees_the_answer_live(visit: Visit, admin: Person) -> None:
    ann, ben = admin.invite(), admin.invite()
    conversation = ann.converse(title="Ours")
    page, other = visit(ann, conversation), visit(ben)
    expect(other.get_by_test_id("conversation-list")).to_contain_text("No conversations yet.")
    page.get_by_test_id("people-toggle").click()
    page.get_by_label("Add someone").fill(ben.name)
    page.get_by_role("button", name=f"Add {ben.name}", exact=True).click()
    expect(page.get_by_test_id("participants")).to_contain_text(ben.name)
    other.get_by_role("link", name="Ours").click()
    expect(other.get_by_text("Nothing here yet.")).to_be_visible()
    send(page, LONG_QUESTION)
    wait_for_text(other, answer(other), 40)
    assert answer(other).get_attribute("data-state") == "streaming"
    answer(other).get_by_test_id("stop").click()
    assert expect_done(answer(other)) == expect_done(answer(page)) != ""


def test_removed_person_is_told_and_loses_the_conversation(visit: Visit, admin: Person) -> None:
    ann, ben = admin.invite(), admin.invite()
    conversation = ann.converse(ben, title="Ours")
    page, other = visit(ann, conversation), visit(ben, conversation)
    expect(other.get_by_role("heading", name="Ours")).to_be_visible()
    page.get_by_test_id("people-toggle").click()
    page.get_by_role("button", name=f"Remove {ben.name}").click()
    expect(other.get_by_role("alert").first).to_contain_text("You are not a participant of this conversation.")
    expect(other.get_by_test_id("conversation-list")).to_contain_text("No conversations yet.")
    expect(other.get_by_test_id("composer")).to_be_hidden()


def test_cut_connection_is_shown_and_mended_without_a_gap(visit: Visit, product: Product, person: Person) -> None:
    page = visit(person, person.converse())
    send(page, LONG_QUESTION)
    before = wait_for_text(page, answer(page), 40)
    product.replica("Streamer").kill()
    expect(page.get_by_test_id("connection")).to_have_text("Reconnecting…")
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live", timeout=30_000)
    wait_for_text(page, answer(page), len(before) + 1)
    cancel(person, answer(page))
    assert expect_done(answer(page)) == stored(person, answer(page))["content"]


def test_what_happens_while_the_server_starts_anew_is_shown_when_it_is_back(visit: Visit, person: Person) -> None:
    conversation = person.converse()
    page = visit(person)
    page.route("**/api/stream/**", lambda route: route.fulfill(status=503))
    page.goto(f"/#/c/{conversation}")
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    with page.expect_response(lambda response: response.status == 404):  # the proxy's, before it knows its routes
        page.route("**/api/**", lambda route: route.fulfill(status=404, body="not found"))
    person.ask(conversation, "Say hello.")
    expect(page.get_by_test_id("connection")).to_have_text("Reconnecting…")
    page.unroute_all()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live", timeout=15_000)
    expect(page.get_by_test_id("message")).to_have_count(2)
    cancel(person, answer(page))


def test_cursor_that_the_server_refuses_makes_the_page_read_anew(visit: Visit, person: Person) -> None:
    conversation = person.converse()
    finish(person, conversation)
    page = visit(person)
    refused: list[str] = []

    def spoil(route: Route) -> None:
        refused.append(route.request.url)
        route.continue_(url=re.sub(r"after=\d+", "after=999999", route.request.url))

    page.route("**/api/stream/conversations/*", spoil, times=1)
    page.goto(f"/#/c/{conversation}")
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    send(page, "Say hello again.")
    expect(page.get_by_test_id("message")).to_have_count(4)
    assert expect_done(answer(page)) == stored(person, answer(page))["content"]
    assert len(refused) == 1


def test_ended_session_leads_to_sign_in_and_says_why(visit: Visit, person: Person) -> None:
    page = visit(person, person.converse())
    person.call("POST", "/api/auth/logout", {})
    send(page, "Is anybody there?")
    expect(page.get_by_test_id("login-form")).to_be_visible()
    expect(page.get_by_role("alert").first).to_contain_text("Your session has ended. Please sign in again.")


def test_signed_out_browser_holds_no_session(visit: Visit, person: Person) -> None:
    page = visit(person)
    page.get_by_test_id("logout").click()
    expect(page.get_by_test_id("login-form")).to_be_visible()
    assert page.context.cookies() == []
    page.reload()
    expect(page.get_by_test_id("login-form")).to_be_visible()
    person.call("GET", "/api/auth/me", status=401)


def test_administrator_adds_a_user_who_can_sign_in(visit: Visit, product: Product, admin: Person) -> None:
    page = visit(admin)
    page.get_by_role("button", name="Add user").click()
    form = page.get_by_test_id("create-user-form")
    form.get_by_label("User name").fill("admin")
    form.get_by_label("E-mail").fill("dora@example.org")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Add user").click()
    expect(form.get_by_role("alert")).to_have_text("This e-mail address or username is taken.")
    form.get_by_label("User name").fill("dora")
    form.get_by_role("button", name="Add user").click()
    expect(form).to_be_hidden()
    Person(product.url, "dora").sign_in()


def test_others_than_administrators_are_not_offered_to_add_users(visit: Visit, person: Person) -> None:
    expect(visit(person).get_by_role("button", name="Add user")).to_be_hidden()


def test_narrow_screen_shows_list_and_conversation_in_turn(visit: Visit, person: Person) -> None:
    conversation = person.converse(title="A title that is much too long for the width of any telephone of today")
    finish(person, conversation)
    page = visit(person, conversation, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    expect(answer(page)).to_be_visible()
    expect(page.get_by_test_id("conversation-list")).to_be_hidden()
    _expect_no_sideways_scrolling(page)
    page.get_by_role("link", name="Back to conversations").click()
    expect(page.get_by_test_id("conversation-list")).to_be_visible()
    expect(page.get_by_test_id("composer")).to_be_hidden()
    _expect_no_sideways_scrolling(page)
    page.get_by_test_id("new-conversation").click()
    expect(page.get_by_label("First message")).to_be_focused()
    _expect_no_sideways_scrolling(page)


def _expect_no_sideways_scrolling(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_every_field_and_button_has_a_name(visit: Visit, person: Person) -> None:
    conversation = person.converse()
    finish(person, conversation)
    page = visit(person, conversation)
    expect(answer(page)).to_be_visible()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, button, a")]
            .filter((node) => !node.labels?.length && !node.ariaLabel && !node.textContent.trim())
            .map((node) => node.outerHTML)"""
    )
    assert nameless == []
