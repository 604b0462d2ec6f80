"""The Postgres access actor: one a cluster, it makes the database ready and hands out access to it.

It is not on the path of a request or a token: a replica asks it once, at its start.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError
from ray.util.metrics import Counter

from db.access import Access
from db.embedded import EmbeddedPostgres
from db.errors import DatabaseError, DatabaseSetupError, DatabaseUnavailable
from db.migrate import migrate
from db.pool import Database, Grant
from db.timers import Timers

logger = logging.getLogger(__name__)

NAME = "postgres"
NAMESPACE = "rustygpt"
# One for what may take long, and one for presence meanwhile.
TIMER_CONNECTIONS = 2
Kind = Literal["app", "worker"]


class PostgresAccess:
    """Makes the database ready: the external one, or the embedded one, which it starts (or adopts, when the
    server outlived an earlier actor) and keeps running. Does the periodic work."""

    def __init__(self, access: Access) -> None:
        access.prepare_actor()
        self._access = access
        self._url = access.url
        self._embedded = None if access.url else EmbeddedPostgres(access.folder)
        self._connections = access.connections_per_replica
        self._addresses: dict[str, str] | None = None
        self._ready = asyncio.Lock()
        self._starting = threading.Lock()
        # The embedded server is kept running from its first start on. An actor that was started again goes on with it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray asks itself in a way that it deprecates
            self._is_wanted = ray.get_runtime_context().was_current_actor_reconstructed
        # Threads, since an actor that was started again is called by nobody: replicas have their access.
        threading.Thread(target=lambda: asyncio.run(self._keep_time()), daemon=True).start()
        if self._embedded is not None:
            threading.Thread(target=self._supervise, args=(self._embedded,), daemon=True).start()

    async def grant(self, kind: Kind) -> Grant:
        """Access for one replica, once the schema is ready. Raises DatabaseUnavailable, DatabaseSetupError."""
        async with self._ready:
            if self._addresses is None:
                self._addresses = await migrate(await asyncio.to_thread(self._start))
        return Grant(self._addresses[kind], self._connections)

    def _start(self) -> str:
        if self._embedded is None:
            assert self._url is not None
            return self._url
        if sum(node["Alive"] for node in ray.nodes()) > 1:
            raise DatabaseSetupError(
                "the embedded PostgreSQL serves one machine only; set DATABASE_URL for a cluster of several nodes"
            )
        self._is_wanted = True
        with self._starting:
            return self._embedded.start()

    async def _keep_time(self, retry_seconds: float = 1.0) -> None:
        pruned = Counter("rustygpt_events_pruned_total", description="Events deleted by retention")
        while True:
            await asyncio.sleep(retry_seconds)
            if self._embedded is not None and not self._is_wanted:
                continue
            try:
                addresses = await migrate(await asyncio.to_thread(self._start))
                grant = Grant(addresses["worker"], TIMER_CONNECTIONS)
                database = await Database.connect(grant, self._access.statement_timeout_seconds)
            except DatabaseError as error:
                logger.warning("the periodic work waits for the database: %s", error)
            else:
                await Timers(database, self._access.timers, lambda count: pruned.inc(count)).run()

    def _supervise(self, server: EmbeddedPostgres, period_seconds: float = 0.5) -> None:
        """Starts the embedded server again when it died."""
        while True:
            time.sleep(period_seconds)
            with self._starting:
                # Not whether there is a postmaster.pid: a start that failed leaves none.
                if self._is_wanted and not server.is_running():
                    logger.warning("the embedded PostgreSQL is gone; starting it again")
                    try:
                        server.start()
                    except DatabaseUnavailable:
                        logger.exception("the embedded PostgreSQL did not start")


def open_access(access: Access) -> Any:
    """The handle of the cluster's access actor, which is made when there is none."""
    return (
        ray.remote(PostgresAccess)
        .options(
            name=NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=-1,
            num_cpus=0,
        )
        .remote(access)
    )


async def connect_database(access: Access, kind: Kind) -> Database:
    """A replica's way to the database: asks the actor for access, and waits while the server is starting.

    Raises DatabaseSetupError, at once: waiting does not mend it.
    """
    while True:
        try:
            grant = await open_access(access).grant.remote(kind)
            return await Database.connect(grant, access.statement_timeout_seconds)
        except DatabaseSetupError:
            raise
        except (DatabaseError, RayActorError) as error:
            # What Ray makes of the actor's error has its whole traceback.
            logger.warning("waiting for the database: %s", getattr(error, "cause", error))
            await asyncio.sleep(1)
