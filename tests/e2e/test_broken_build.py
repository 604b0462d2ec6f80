"""llama.cpp's code is broken on purpose: people get answers all the same, or are told why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.model.engine.backend import variants
from tests.support.broken_library import ILLEGAL, copy_libraries, cpu_libraries, overwrite
from tests.support.person import PASSWORD, Person
from tests.support.product import Product

pytestmark = pytest.mark.skipif(len(variants()) < 2, reason="llama.cpp was compiled without CPU variants")

Start = Callable[[list[str]], tuple[Product, Person]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a product whose llama.cpp ends with an illegal instruction in some CPU variants, and its administrator."""
    products: list[Product] = []
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o711)

    def start_broken(broken: list[str]) -> tuple[Product, Person]:
        folder = copy_libraries(tmp_path / "lib")
        for library in cpu_libraries(folder):
            if library.stem.removeprefix("libggml-cpu-") in broken:
                overwrite(library, ILLEGAL)
        settings = {"LLAMA_CPP_LIB_PATH": str(folder), "RUSTYGPT__LLM__TUNING": "off"}
        product = Product(tmp_path / "home", RUSTYGPT__LLM__TUNING_FOLDER=str(tmp_path / "tuning"), **settings)
        products.append(product)
        product.start()
        account = {"username": "admin", "email": "admin@example.org", "password": PASSWORD}
        Person(product.url, "admin").call("POST", "/api/setup", account, 201)
        return product, Person(product.url, "admin").sign_in()

    yield start_broken
    for product in products:
        product.stop()


def answer(person: Person) -> dict[str, Any]:
    """The message that the assistant writes, when it has ended."""
    conversation = person.converse()
    posted = person.ask(conversation, "Name three colours.")
    person.follow(conversation, posted["cursor"])
    return person.message(posted["root_id"], posted["assistant_message_id"])


def test_a_machine_whose_best_code_crashes_answers_by_other_code_and_says_so(start: Start) -> None:
    best, other, *_ = variants()
    product, admin = start([best])
    stored = answer(admin)
    assert stored["finish_reason"] in ("stop", "length")
    (model,) = admin.call("GET", "/api/admin/models")["models"]
    assert model["replica"]["cpu_variant"] == other
    verified = model["replica"]["verified"]
    assert verified["given_up"] == [f"llama.cpp's best CPU variant ({other} computes)"]
    assert verified["faults"][0] == {"tried": "as it is", "fault": "it was ended by SIGILL"}
    assert f"without llama.cpp's best CPU variant ({other} computes)" in product.log.read_text()


def test_a_machine_that_runs_the_model_in_no_way_refuses_with_the_reason(start: Start) -> None:
    product, admin = start(list(variants()))
    ready = httpx.get(f"{product.url}/readyz")
    assert ready.status_code == 503
    (missing,) = ready.json()["missing"]
    assert missing.startswith("model default: cannot run on this machine")
    assert "SIGILL" in missing
    assert missing in product.log.read_text()

    replica = product.replica("Model").pid
    stored = answer(admin)
    assert stored["finish_reason"] == "error"
    key = admin.call("POST", "/api/keys", {"name": "key"}, 201)["key"]
    question = {"model": "default", "messages": [{"role": "user", "content": "Hello"}]}
    refused = httpx.post(
        f"{product.url}/v1/chat/completions", json=question, headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_unusable")
    (model,) = admin.call("GET", "/api/admin/models")["models"]
    assert model["readiness"]["states"] == {"unusable": 1}
    assert product.replica("Model").pid == replica, "a replica that cannot run the model is not started again and again"
