"""The choice of a replica: the longest prefix wins, within bounded loads."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from deployments.model.affinity import Affinity, PrefixMap
from deployments.prefixes import Prefix

FACTOR = 1.5


def bound(load: dict[str, int], more: int = 1) -> int:
    """The most that a replica may have, `more` requests from now."""
    return max(2, math.ceil(FACTOR * (sum(load.values()) + more) / len(load)))


REPLICAS = ("a", "b", "c", "d")


def prefix(*blocks: str, thread: str = "thread") -> Prefix:
    return Prefix(thread.encode(), tuple(block.encode() for block in blocks))


def affinity(**sent: list[Prefix]) -> Affinity:
    """One that has seen what was sent to each replica."""
    made = Affinity(1000, FACTOR)
    for replica, prefixes in sent.items():
        for each in prefixes:
            made.note(each, replica)
    return made


def idle(*replicas: str) -> dict[str, int]:
    return dict.fromkeys(replicas, 0)


chains = st.lists(st.sampled_from("xyz"), max_size=6).map(
    lambda letters: prefix(*("".join(letters[: i + 1]) for i in range(len(letters))), thread="".join(letters))
)
loads = st.dictionaries(st.sampled_from(REPLICAS), st.integers(0, 40), min_size=1)
histories = st.lists(st.tuples(chains, st.sampled_from(REPLICAS)), max_size=20)


def after(history: list[tuple[Prefix, str]]) -> Affinity:
    made = Affinity(1000, FACTOR)
    for sent, replica in history:
        made.note(sent, replica)
    return made


def common(a: Prefix, b: Prefix) -> int:
    return sum(x == y for x, y in zip(a.blocks, b.blocks, strict=False))


# Affinity


def test_the_longest_prefix_wins() -> None:
    choose = affinity(a=[prefix("1")], b=[prefix("1", "2", "3")], c=[prefix("1", "2")]).choose
    choice = choose(prefix("1", "2", "3", "4"), idle("a", "b", "c"), 100)
    assert choice.kind == "affinity"
    assert choice.order[0] == "b"


def test_what_is_new_goes_to_the_same_replica_from_every_gateway() -> None:
    one, other = affinity(), affinity(a=[prefix("9")], b=[prefix("8")])
    for number in range(20):
        new = prefix("1", "2", thread=str(number))
        assert one.choose(new, idle(*"abc"), 100) == other.choose(new, idle(*"cab"), 100)
        assert one.choose(new, idle(*"abc"), 100).kind == "new"


def test_new_threads_spread_over_all_replicas() -> None:
    first = [affinity().choose(prefix("1", thread=str(i)), idle(*"abc"), 100).order[0] for i in range(300)]
    assert all(first.count(replica) > 60 for replica in "abc")


def test_threads_that_share_what_all_replicas_have_spread_as_well() -> None:
    system = [prefix("system")]
    choose = affinity(a=system, b=system, c=system).choose
    first = [choose(prefix("system", str(i), thread=str(i)), idle(*"abc"), 100).order[0] for i in range(300)]
    assert all(first.count(replica) > 60 for replica in "abc")


def test_a_new_replica_takes_only_its_share_of_what_is_new() -> None:
    moved = 0
    for number in range(300):
        new = prefix("1", thread=str(number))
        before, now = (affinity().choose(new, idle(*names), 100).order[0] for names in ("abc", "abcd"))
        assert now in (before, "d")
        moved += now == "d"
    assert 40 < moved < 110


# Load


def long(*parts: str) -> Prefix:
    """Each part is 10 blocks."""
    return prefix(*(f"{part}{block}" for part in parts for block in range(10)))


def test_a_loaded_replica_gives_way_to_the_next_longest_prefix() -> None:
    choose = affinity(a=[long("1", "2", "3")], b=[long("1", "2")]).choose
    choice = choose(long("1", "2", "3"), {"a": 9, "b": 4, "c": 0}, 100)
    assert choice.kind == "guarded"
    assert choice.order[0] == "b"


def test_a_long_prefix_is_worth_waiting_for_and_a_short_one_is_not() -> None:
    loads = {"a": 4, "b": 2, "c": 3}
    assert affinity(a=[long("1")]).choose(long("1"), loads, 100).order[0] == "a"
    assert affinity(a=[prefix("1")]).choose(prefix("1"), loads, 100).order[0] != "a"


def test_threads_that_begin_alike_at_once_do_not_pile_up_where_the_first_one_went() -> None:
    made, load = Affinity(1000, FACTOR), idle(*"abc")
    for number in range(12):
        asked = prefix(*"system", str(number), thread=str(number))
        chosen = made.choose(asked, load, 100).order[0]
        made.note(asked, chosen)
        load[chosen] += 1
    assert max(load.values()) <= 5


def test_what_no_other_replica_has_goes_to_the_least_loaded() -> None:
    choice = affinity(a=[prefix("1")]).choose(prefix("1"), {"a": 9, "b": 2, "c": 1}, 100)
    assert choice.kind == "guarded"
    assert choice.order[0] == "c"


def test_two_requests_are_never_too_many() -> None:
    choose = affinity(a=[long("1")]).choose
    assert choose(long("1"), {"a": 1, "b": 0, "c": 0}, 100).order[0] == "a"
    assert choose(long("1"), {"a": 2, "b": 0, "c": 0}, 100).order[0] != "a"


def test_a_full_replica_is_not_asked_though_all_are_loaded_alike() -> None:
    choice = affinity(a=[prefix("1")]).choose(prefix("1"), {"a": 4, "b": 3}, 4)
    assert choice.order[0] == "b"


@given(histories, chains, loads)
def test_no_load_rises_above_its_bound(history: list[tuple[Prefix, str]], asked: Prefix, load: dict[str, int]) -> None:
    chosen = after(history).choose(asked, load, 1000).order[0]
    assert load[chosen] + 1 <= bound(load)


@given(histories, chains, st.sets(st.sampled_from(REPLICAS), min_size=1), st.integers(0, 40))
def test_among_replicas_that_are_loaded_alike_the_longest_prefix_wins(
    history: list[tuple[Prefix, str]], asked: Prefix, replicas: set[str], load: int
) -> None:
    choice = after(history).choose(asked, dict.fromkeys(replicas, load), 1000)
    depth = {
        replica: max((common(sent, asked) for sent, to in history if to == replica), default=0) for replica in replicas
    }
    assert depth[choice.order[0]] == max(depth.values())
    assert choice.kind == ("affinity" if max(depth.values()) else "new")


@given(st.lists(st.tuples(chains, st.booleans()), max_size=200))
def test_loads_stay_within_the_bound_however_requests_come_and_end(steps: list[tuple[Prefix, bool]]) -> None:
    made, load, running = Affinity(1000, FACTOR), idle("a", "b", "c"), list[str]()
    for asked, one_ends in steps:
        if one_ends and running:
            load[running.pop(0)] -= 1
        chosen = made.choose(asked, load, 1000).order[0]
        made.note(asked, chosen)
        load[chosen] += 1
        running.append(chosen)
        assert load[chosen] <= bound(load, more=0)


# Replicas that come and go; memory


@given(histories, chains, loads, st.sets(st.sampled_from(REPLICAS), min_size=1))
def test_only_replicas_that_there_are_are_chosen(
    history: list[tuple[Prefix, str]], asked: Prefix, load: dict[str, int], kept: set[str]
) -> None:
    made = after(history)
    made.keep(kept)
    assert sorted(made.choose(asked, load, 1000).order) == sorted(load)
    assert set(made.prefixes.depths(asked.blocks)) <= kept


def test_what_a_gone_replica_had_is_new_again() -> None:
    made = affinity(a=[prefix("1", "2")], b=[prefix("3")])
    made.keep({"b"})
    assert made.choose(prefix("1", "2"), idle("b", "c"), 100).kind == "new"
    assert len(made.prefixes) == 1


@given(st.integers(1, 10), histories)
def test_memory_is_bounded(limit: int, history: list[tuple[Prefix, str]]) -> None:
    known = PrefixMap(limit)
    for sent, replica in history:
        known.note(sent.blocks, replica)
        assert len(known) <= limit


def test_a_block_remembers_its_last_replicas_only() -> None:
    known = PrefixMap(10)
    for number in range(20):
        known.note([b"1"], str(number))
    assert set(known.depths([b"1"])) == {str(number) for number in range(12, 20)}


def test_the_end_of_a_prompt_is_forgotten_before_its_beginning() -> None:
    known = PrefixMap(3)
    known.note([b"1", b"2", b"3"], "a")
    known.note([b"4"], "b")
    assert known.depths([b"1", b"2", b"3"]) == {"a": 2}
