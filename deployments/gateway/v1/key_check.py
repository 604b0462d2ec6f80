"""Whose API key it is."""

from __future__ import annotations

import math
import time
from uuid import UUID

import orjson

from db.errors import RefusedError
from db.pool import Database
from deployments.gateway.keys.key_format import is_key, key_hash
from deployments.gateway.v1.callers import Caller
from deployments.gateway.v1.errors import ApiError
from deployments.gateway.v1.key_sync import KeySync
from deployments.gateway.v1.known_keys import KnownKey, KnownKeys
from deployments.gateway.v1.limits import Limits
from deployments.observability.metrics import API_KEY_CHECKS


class KeyCheck:
    """Tells holders of live keys from all others. A key that is revoked, expires, or whose account is disabled is
    refused by every Gateway within 2 seconds; most checks need no round trip to the database."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._known = KnownKeys()
        self._sync = KeySync(database, self._known, limits)
        limits.on_use = self._sync.wake

    async def holder(self, key: str) -> Caller:
        """Raises ApiError 401, RefusedError 401 or 423, DatabaseUnavailable."""
        credential = key_hash(key)
        caller = self._known.get(credential, time.monotonic())
        if caller is not None:
            API_KEY_CHECKS.inc(tags={"result": "remembered"})
        elif is_key(key):
            caller = await self._look_up(credential)
        else:
            API_KEY_CHECKS.inc(tags={"result": "malformed"})
            message = "This is no API key of this service, or it was cut or mistyped. Keys begin with rgpt_."
            raise ApiError(401, "authentication_error", "invalid_api_key", message)
        assert caller.key_id is not None
        self._sync.note_use(caller.key_id)
        return caller

    async def _look_up(self, credential: bytes) -> Caller:
        asked_at = time.monotonic()
        try:
            found = orjson.loads(await self._database.value("find_key", credential))
        except RefusedError:
            API_KEY_CHECKS.inc(tags={"result": "refused"})
            raise
        API_KEY_CHECKS.inc(tags={"result": "looked_up"})
        caller = Caller(UUID(found["user_id"]), credential, UUID(found["key_id"]), frozenset(found["scopes"]))
        lasts = found["expires_in_seconds"]
        # From when it was asked: early rather than late.
        ends_at = asked_at + (math.inf if lasts is None else lasts)
        self._known.put(credential, KnownKey(caller, ends_at), found["version"], asked_at)
        return caller
