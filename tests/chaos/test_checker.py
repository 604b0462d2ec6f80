"""The checker finds what is wrong: each history here breaks one promise."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.chaos.checker import Channel, FinalLog, Message, Turn, Violation, check
from tests.chaos.history import Cancel, Cursor, History, Post, Reading, Seen, Takeover

ROOM, ASKED, ANSWER = "room", "asked", "answer"


def event(offset: int, kind: str, **payload: object) -> Seen:
    return Seen(Cursor(1, offset), kind, json.dumps({"type": kind, "payload": payload}).encode())


def delta(offset: int, number: int, text: str) -> Seen:
    choices = [{"delta": {"content": text}}]
    return event(offset, "message.delta", id=f"{ANSWER}:{number}", message_id=ANSWER, choices=choices)


def done(offset: int, reason: str = "stop") -> Seen:
    return event(offset, "message.done", message_id=ANSWER, finish_reason=reason)


EVENTS = [event(1, "message.created"), delta(2, 0, "Good "), delta(3, 1, "day."), done(4)]


def good_log(events: list[Seen] | None = None) -> FinalLog:
    """One question and its answer."""
    events = EVENTS if events is None else events
    log = FinalLog()
    log.channels[ROOM] = Channel(1, 1, events[-1].cursor.offset, {item.cursor.offset: item for item in events})
    log.conversations[ROOM] = "Chaos [k.0]"
    log.messages[ASKED] = Message(ASKED, ROOM, None, "user", "done", "[k.1] Say good day.", None)
    log.messages[ANSWER] = Message(ANSWER, ROOM, ASKED, "assistant", "done", "Good day.", "stop")
    log.turns[ANSWER] = Turn(ANSWER, "done", 1)
    return log


def good_history(*readings: Reading) -> History:
    return History(
        posts=[
            Post("k.0", "conversation", "ann", "", "ok", 1, [{"id": ROOM}]),
            Post("k.1", "root", "ann", ROOM, "ok", 1, [{"id": ASKED, "assistant_message_id": ANSWER}]),
        ],
        readings=list(readings),
    )


def reading(*events: Seen, after: int = 0) -> Reading:
    return Reading("ben", ROOM, Cursor(1, after), Cursor(1, after), list(events))


def kinds(violations: list[Violation]) -> set[str]:
    return {violation.kind for violation in violations}


def test_a_good_history_has_no_violations() -> None:
    whole = replace(reading(*EVENTS), to_the_end=True)
    part = reading(*EVENTS[2:3], after=2)
    assert check(good_history(whole, part, reading(after=4)), good_log()) == []


def test_a_gap_is_found() -> None:
    assert kinds(check(good_history(reading(EVENTS[0], EVENTS[2])), good_log())) == {"gap"}


def test_a_gap_after_the_cursor_is_found() -> None:
    assert kinds(check(good_history(reading(EVENTS[3], after=2)), good_log())) == {"gap"}


def test_a_duplicate_is_found() -> None:
    assert kinds(check(good_history(reading(EVENTS[0], EVENTS[0])), good_log())) == {"duplicate"}


def test_an_event_again_after_a_resume_is_found() -> None:
    assert kinds(check(good_history(reading(EVENTS[1], after=2)), good_log())) == {"duplicate"}


def test_a_reorder_is_found() -> None:
    assert "reorder" in kinds(check(good_history(reading(*EVENTS[:3], EVENTS[1])), good_log()))


def test_changed_bytes_are_found() -> None:
    changed = EVENTS[1]._replace(data=EVENTS[1].data.replace(b"Good", b"Bad"))
    assert kinds(check(good_history(reading(EVENTS[0], changed)), good_log())) == {"changed bytes"}


def test_an_event_that_was_shown_and_is_not_stored_is_found() -> None:
    assert kinds(check(good_history(reading(event(5, "x"), after=4)), good_log())) == {"not in the log"}


def test_an_event_of_another_epoch_is_found() -> None:
    other = EVENTS[1]._replace(cursor=Cursor(2, 2))
    assert "not in the log" in kinds(check(good_history(reading(other, after=1)), good_log()))


def test_a_reader_that_was_left_short_is_found() -> None:
    assert kinds(check(good_history(replace(reading(*EVENTS[:2]), to_the_end=True)), good_log())) == {"short"}


def test_a_reset_is_found() -> None:
    assert kinds(check(good_history(replace(reading(), end="reset")), good_log())) == {"reset"}


def test_a_stream_that_begins_elsewhere_is_found() -> None:
    assert kinds(check(good_history(replace(reading(), place=Cursor(1, 3))), good_log())) == {"wrong place"}


def test_a_hole_in_the_log_is_found() -> None:
    log = good_log()
    del log.channels[ROOM].events[2]
    assert "gap in the log" in kinds(check(good_history(), log))


def test_two_ends_are_found() -> None:
    assert kinds(check(good_history(), good_log([*EVENTS, done(5)]))) == {"two ends"}


def test_a_missing_end_is_found() -> None:
    assert kinds(check(good_history(), good_log(EVENTS[:3]))) == {"no end"}


def test_a_turn_that_is_still_open_is_found() -> None:
    log = good_log(EVENTS[:3])
    log.turns[ANSWER] = Turn(ANSWER, "running", 3)
    log.messages[ANSWER] = replace(log.messages[ANSWER], state="streaming", finish_reason=None)
    assert kinds(check(good_history(), log)) == {"no end"}


def test_text_after_the_end_is_found() -> None:
    log = good_log([EVENTS[0], EVENTS[1], done(3), delta(4, 1, "day.")])
    assert kinds(check(good_history(), log)) == {"text after the end"}


def test_text_of_a_stale_writer_is_found() -> None:
    log = good_log([EVENTS[0], EVENTS[1], delta(3, 0, "Good "), done(4)])
    assert kinds(check(good_history(), log)) == {"delta numbers", "other text stored"}


def test_stored_text_that_nobody_was_shown_is_found() -> None:
    log = good_log()
    log.messages[ANSWER] = replace(log.messages[ANSWER], content="Good night.")
    assert kinds(check(good_history(), log)) == {"other text stored"}


def test_an_end_other_than_the_stored_one_is_found() -> None:
    assert kinds(check(good_history(), good_log([*EVENTS[:3], done(4, "length")]))) == {"other end stored"}


def test_an_acknowledged_post_that_is_missing_is_found() -> None:
    history = good_history()
    history.posts.append(Post("k.2", "root", "ann", ROOM, "ok", 1, [{"id": "gone"}]))
    assert kinds(check(history, good_log())) == {"post is missing"}


def test_a_post_that_exists_twice_is_found() -> None:
    for outcome in ("ok", "unknown"):
        history, log = good_history(), good_log()
        history.posts[1] = replace(history.posts[1], outcome=outcome)
        log.messages["again"] = replace(log.messages[ASKED], id="again")
        assert kinds(check(history, log)) == {"post exists twice"}


def test_an_unknown_post_may_be_missing() -> None:
    history = good_history()
    history.posts.append(Post("k.2", "root", "ann", ROOM, "unknown", 3))
    assert check(history, good_log()) == []


def test_a_refused_post_that_exists_is_found() -> None:
    history = good_history()
    history.posts[1] = replace(history.posts[1], outcome="refused", answers=[])
    assert kinds(check(history, good_log())) == {"refused post exists"}


def test_a_post_of_nobody_is_found() -> None:
    log = good_log()
    log.messages["other"] = replace(log.messages[ASKED], id="other", content="[k.9] Who said this?")
    assert kinds(check(good_history(), log)) == {"nobody's"}


def test_a_repeated_post_with_other_ids_is_found() -> None:
    history = good_history()
    history.posts[1].answers.append({"id": "other", "assistant_message_id": ANSWER})
    assert kinds(check(history, good_log())) == {"repeated post got other ids"}


def test_a_post_whose_promised_answer_is_not_there_is_found() -> None:
    history = good_history()
    history.posts[1].answers[0]["assistant_message_id"] = "none"
    assert kinds(check(history, good_log())) == {"post has no answer"}


def test_a_cancel_that_was_confirmed_and_did_not_happen_is_found() -> None:
    history = good_history()
    history.cancels.append(Cancel(ANSWER, "ok", "cancelled"))
    assert kinds(check(history, good_log())) == {"cancel"}


def test_a_turn_that_waited_for_its_stopped_replica_is_found() -> None:
    history = good_history()
    history.takeovers.append(Takeover(ANSWER, taken=False))
    assert kinds(check(history, good_log())) == {"not taken over"}


def test_a_refusal_of_what_was_right_is_found() -> None:
    history = good_history()
    history.refusals.append("k.2: 404")
    assert kinds(check(history, good_log())) == {"wrongly refused"}


def test_a_service_that_did_not_come_back_is_found() -> None:
    history = good_history()
    history.unrecovered.append("kill-model")
    assert kinds(check(history, good_log())) == {"not recovered"}
