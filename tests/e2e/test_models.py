"""What an administrator sees of the models."""

from __future__ import annotations

from deployments.model.engine import Tuning
from tests.support.person import Person


def test_administrator_sees_weights_with_their_gain_and_loss(admin: Person, tuning: Tuning) -> None:
    (model,) = admin.call("GET", "/api/admin/models")["models"]
    assert (model["id"], model["status"], model["weights_policy"]) == ("default", "RUNNING", "auto")
    replica = model["replica"]
    assert replica["weights"] == tuning.format
    assert replica["measured"] == tuning.measured
    assert replica["n_threads"] == tuning.n_threads
    assert replica["max_sequence_tokens"] * replica["max_slots"] == replica["engine"]["kv_total_tokens"]
    assert replica["hardware"]["cores"] >= 1


def test_member_is_refused(person: Person) -> None:
    refused = person.call("GET", "/api/admin/models", status=403)
    assert refused["code"] == "RGP.RBAC.FORBIDDEN"
