"""What an administrator sees of the models."""

from __future__ import annotations

from deployments.model.engine.backend import loaded_variant
from tests.support.person import Person


def test_administrator_sees_how_each_model_runs_and_that_it_was_verified(admin: Person) -> None:
    (model,) = admin.call("GET", "/api/admin/models")["models"]
    assert (model["id"], model["status"], model["weights_policy"]) == ("default", "RUNNING", "auto")
    assert model["readiness"]["ready"] is True
    assert model["readiness"]["states"] == {"ready": 1}
    replica = model["replica"]
    assert replica["cpu_variant"] == loaded_variant()
    assert replica["verified"]["given_up"] == []
    assert replica["verified"]["reference"].startswith("x64 ")
    assert replica["max_sequence_tokens"] * replica["max_slots"] == replica["engine"]["kv_total_tokens"]
    assert replica["hardware"]["cores"] >= 1
    assert replica["tuning"]["state"] in ("off", "measured")


def test_member_is_refused(person: Person) -> None:
    refused = person.call("GET", "/api/admin/models", status=403)
    assert refused["code"] == "RGP.RBAC.FORBIDDEN"
