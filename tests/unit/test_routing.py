"""The router under Serve's own machinery, with replicas that only count."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RequestMetadata
from ray.serve.request_router import PendingRequest

from deployments.generation import Ask
from deployments.messages import MODEL_DEPLOYMENT, TurnOffer, model_app
from deployments.model.routing import PrefixRouter
from deployments.prefixes import Prefix

DEPLOYMENT = DeploymentID(MODEL_DEPLOYMENT, model_app("default"))


class Replica:
    """What a router sees of one. `busy` are the requests of other Gateways."""

    def __init__(self, name: str, capacity: int = 100) -> None:
        self.replica_id = ReplicaID(name, DEPLOYMENT)
        self.max_ongoing_requests = capacity
        self.busy = 0

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return self.busy


def router(*replicas: Replica, **kwargs: Any) -> PrefixRouter:
    made = PrefixRouter(DEPLOYMENT, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True)
    made.initialize_state(**kwargs)
    made.update_replicas(list(replicas))  # pyright: ignore[reportArgumentType] all that a router asks of them
    return made


def request(argument: object, method: str = "generate", request_id: str = "one") -> PendingRequest:
    return PendingRequest([argument], {}, RequestMetadata(request_id, request_id, call_method=method))


def ask(text: str) -> Ask:
    return Ask(messages=({"role": "user", "content": text * 50},))


async def sent(to: PrefixRouter, pending: PendingRequest) -> str:
    """Where the router sends a request that then runs on; as Serve's Router does it."""
    async with asyncio.timeout(10):
        replica = await to._choose_replica_for_request(pending)
    to.on_send_request(replica.replica_id)
    to.on_request_routed(pending, replica.replica_id, None)
    return replica.replica_id.unique_id


def ended(at: PrefixRouter, name: str) -> None:
    at.on_request_completed(ReplicaID(name, DEPLOYMENT), "one")
    at.decrement_queue_len_cache(ReplicaID(name, DEPLOYMENT))


async def test_a_conversation_stays_where_its_prefix_is() -> None:
    routing = router(Replica("a"), Replica("b"), Replica("c"))
    for number in range(10):
        said = ({"role": "user", "content": f"{number} " * 100},)
        first = await sent(routing, request(Ask(messages=said)))
        ended(routing, first)
        said += ({"role": "assistant", "content": "Yes. " * 50}, {"role": "user", "content": "And then? " * 20})
        second = await sent(routing, request(Ask(messages=said)))
        ended(routing, second)
        assert first == second


async def test_turns_of_a_thread_go_to_one_replica_and_threads_to_many() -> None:
    routing = router(Replica("a"), Replica("b"), Replica("c"))
    places = set()
    for number in range(20):
        offers = [TurnOffer(UUID(int=branch), Prefix.of_thread(UUID(int=number))) for branch in range(2)]
        names = [await sent(routing, request(offer, "run_turn")) for offer in offers]
        for name in names:
            ended(routing, name)
        assert len(set(names)) == 1
        places.add(names[0])
    assert places == {"a", "b", "c"}


async def test_no_replica_gets_more_than_its_share_of_one_prefix() -> None:
    routing = router(Replica("a"), Replica("b"), Replica("c"))
    names = [await sent(routing, request(ask("The same. "))) for _ in range(30)]
    assert max(names.count(name) for name in "abc") <= 15


async def test_requests_of_other_gateways_count() -> None:
    favourite = await sent(router(Replica("a"), Replica("b")), request(ask("Hello. ")))
    replicas = [Replica("a"), Replica("b")]
    next(r for r in replicas if r.replica_id.unique_id == favourite).busy = 20
    routing = router(*replicas)
    while not all(routing.replica_queue_len_cache.get(r.replica_id) is not None for r in replicas):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await sent(routing, request(ask("Hello. "))) != favourite


async def test_a_dead_replica_is_not_chosen_and_what_it_had_is_sent_elsewhere() -> None:
    routing = router(Replica("a"), Replica("b"))
    first = await sent(routing, request(ask("Hello. ")))
    routing.on_replica_actor_died(ReplicaID(first, DEPLOYMENT))
    assert not routing.affinity.prefixes.depths(Prefix.of_ask(ask("Hello. ")).blocks)
    assert await sent(routing, request(ask("Hello. "))) != first


async def test_what_replicas_had_that_the_controller_took_away_is_forgotten() -> None:
    routing = router(Replica("a"), Replica("b"))
    await sent(routing, request(ask("Hello. ")))
    routing.update_replicas([Replica("c"), Replica("d")])  # pyright: ignore[reportArgumentType]
    assert len(routing.affinity.prefixes) == 0
    assert await sent(routing, request(ask("Hello. "))) in ("c", "d")


async def test_a_full_replica_is_passed_over() -> None:
    routing = router(Replica("a", capacity=2), Replica("b", capacity=2))
    assert sorted([await sent(routing, request(ask("Hello. "))) for _ in range(4)]) == ["a", "a", "b", "b"]


async def test_a_request_waits_for_the_first_replica() -> None:
    routing = router()
    waiting = asyncio.create_task(sent(routing, request(ask("Hello. "))))
    await asyncio.sleep(0)
    routing.update_replicas([Replica("a")])  # pyright: ignore[reportArgumentType]
    assert await waiting == "a"


async def test_calls_made_for_one_http_request_are_all_answered() -> None:
    routing = router(Replica("a"), Replica("b"))
    calls = [sent(routing, request(ask(f"{number}. "), request_id="the same")) for number in range(8)]
    assert len(await asyncio.gather(*calls)) == 8


async def test_other_calls_go_to_the_least_loaded() -> None:
    routing = router(Replica("a"), Replica("b"))
    busy = await sent(routing, request(ask("Hello. ")))
    assert await sent(routing, request((), "describe")) != busy


def test_unknown_settings_are_refused() -> None:
    made = PrefixRouter(DEPLOYMENT, DeploymentHandleSource.REPLICA)
    with pytest.raises(ValueError, match="load_factor"):
        made.initialize_state(load_factor=0.5)
    with pytest.raises(ValueError, match="blocks"):
        made.initialize_state(blocks=1)
