"""Serve's hook: which replica of a model gets a request. Runs wherever a model is asked, in each Gateway for itself."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from ray.serve._private.common import RequestMetadata
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from deployments.generation import Ask
from deployments.messages import TurnOffer
from deployments.model.affinity import Affinity
from deployments.observability.metrics import ROUTED
from deployments.prefixes import Prefix


class PrefixRouter(RequestRouter):
    """Sends a request to the replica that most likely has its prefix in the KV cache, unless that one is loaded.

    Of `request_router_kwargs`: `load_factor`, how far above the mean a replica's requests in flight may rise before
    others take over; `limit_blocks`, how much is remembered of what was sent where.
    """

    def initialize_state(self, load_factor: float = 1.5, limit_blocks: int = 50_000, **unknown: Any) -> None:
        """Called by Serve. Raises ValueError."""
        if unknown or load_factor < 1 or limit_blocks < 1:
            raise ValueError(
                "request_router_kwargs takes load_factor (1 or more) and limit_blocks (1 or more), "
                f"not {unknown | {'load_factor': load_factor, 'limit_blocks': limit_blocks}}"
            )
        self.affinity = Affinity(limit_blocks, load_factor)
        self._sent: Counter[ReplicaID] = Counter()
        self._model_tag = {"model": self.app_name.removeprefix("model-")}

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """One rank for each replica, the best first."""
        again = pending_request is not None and pending_request.routing_context.should_backoff
        if pending_request:
            # Where all are full, Serve comes again later instead of at once.
            pending_request.routing_context.should_backoff = True
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if len(replicas) < 2:
            return [candidate_replicas]
        if pending_request and pending_request.metadata.call_method == "carry":
            wanted = pending_request.args[0]
            return [[replicas[name]] for name in sorted(replicas, key=lambda name: name != wanted)]
        loads = {name: self._load(replica.replica_id) for name, replica in replicas.items()}
        prefix = _prefix(pending_request) if pending_request else None
        if prefix is None:
            by_load = sorted(loads, key=lambda name: (loads[name], random.random()))  # noqa: S311 no secret
            return [[replicas[name]] for name in by_load]
        choice = self.affinity.choose(prefix, loads, candidate_replicas[0].max_ongoing_requests)
        if not again:
            ROUTED.inc(tags=self._model_tag | {"result": choice.kind})
        return [[replicas[name]] for name in choice.order]

    def _load(self, replica: ReplicaID) -> int:
        """Requests in flight: what the replica said last, of all its callers, which Serve forgets after a while; but no
        fewer than were sent from here."""
        return max(self._sent[replica], self.replica_queue_len_cache.get(replica) or 0)

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:  # noqa: ARG002
        """The replica has taken it."""
        if prefix := _prefix(pending_request):
            self.affinity.note(prefix, replica_id.unique_id)

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Sent, whether it is taken or not."""
        super().on_send_request(replica_id)
        self._sent[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:  # noqa: ARG002
        """Ended, in whatever way."""
        self._sent[replica_id] = max(0, self._sent[replica_id] - 1)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """These are all from now on."""
        super().update_replicas(replicas)
        self._forget_others()

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Known before the controller has noticed."""
        super().on_replica_actor_died(replica_id)
        self._forget_others()

    def _forget_others(self) -> None:
        self.affinity.keep({replica.unique_id for replica in self.curr_replicas})
        self._sent = Counter({replica: self._sent[replica] for replica in self.curr_replicas})

    def _fulfill_next_pending_request(
        self, replica: RunningReplica, request_metadata: RequestMetadata | None = None
    ) -> None:
        """Gives the replica to the request that it was chosen for.

        Serve's own looks for the request's id, which all calls made on behalf of one HTTP request share: it finds the
        first of them only, and the others would wait for ever.
        """
        for waiting in self._pending_requests_to_fulfill:
            if waiting.metadata is request_metadata and not waiting.future.done():
                self._record_queue_wait_time(waiting)
                waiting.future.set_result(replica)
                self._remove_pending_request_from_indices(waiting)
                return


def _prefix(request: PendingRequest) -> Prefix | None:
    """None: the call computes nothing that is kept."""
    asked = request.args[0] if request.args else None
    if isinstance(asked, TurnOffer):
        return asked.prefix
    return Prefix.of_ask(asked) if isinstance(asked, Ask) and request.metadata.call_method == "generate" else None
