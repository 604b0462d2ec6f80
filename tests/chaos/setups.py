"""Services to be put under fire, started for the purpose in a folder of their own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from db.embedded import EmbeddedPostgres
from deployments.local_cluster import CONFIG
from tests.chaos.external_postgres import external_postgres
from tests.chaos.service import OneMachine, Service
from tests.chaos.three_nodes import ThreeNodes
from tests.support.broken_library import copy_libraries
from tests.support.person import PASSWORD, Person
from tests.support.product import Product

# Answers are short: what counts is how many begin and end while something breaks.
SHORT_ANSWERS = {"RUSTYGPT__LLM__MODELS__default__MAX_TOKENS": "48"}
LONG_ANSWERS = {"RUSTYGPT__LLM__MODELS__default__MAX_TOKENS": "200"}


@contextmanager
def one_machine() -> Iterator[Service]:
    """The product as it comes: one replica of everything."""
    with _product(None, **SHORT_ANSWERS) as service:
        yield service


@contextmanager
def own_libraries() -> Iterator[Service]:
    """The product with a copy of llama.cpp's libraries."""
    with _folder("rgpt-lib-") as folder:
        libraries = copy_libraries(folder / "lib")
        settings = {"LLAMA_CPP_LIB_PATH": str(libraries), "RUSTYGPT__LLM__TUNING": "off"}
        with _product(libraries, **SHORT_ANSWERS, **settings) as service:
            yield service


@contextmanager
def two_models() -> Iterator[Service]:
    """The product with two Model replicas, whose answers take longer than it takes to find out who writes them."""
    config = yaml.safe_load(CONFIG.read_text())
    for application in config["applications"]:
        if application["name"] == "model-default":
            application["deployments"][0]["num_replicas"] = 2
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        with _product(None, **LONG_ANSWERS, RUSTYGPT__CLUSTER__SERVE_CONFIG=file.name) as service:
            yield service


@contextmanager
def three_nodes() -> Iterator[Service]:
    """A Ray cluster of three nodes with an external database."""
    with _folder("rgpt-") as folder, external_postgres(folder / "postgres") as urls:
        service = ThreeNodes(folder, urls, SHORT_ANSWERS)
        try:
            service.expect("ready")
            set_up(service.doors[0])
            yield service
        finally:
            service.stop()


@contextmanager
def _product(libraries: Path | None, **settings: str) -> Iterator[Service]:
    with _folder("rgpt-chaos-") as folder:
        home = folder / "home"
        product = Product(home, **settings)
        try:
            product.start()
            set_up(product.url)
            yield OneMachine(product, EmbeddedPostgres(home / "postgres").start(), libraries)
        finally:
            product.stop()
            EmbeddedPostgres(home / "postgres").stop()


def set_up(url: str) -> None:
    """Makes the administrator."""
    account = {"username": "admin", "email": "admin@example.org", "password": PASSWORD}
    Person(url, "admin").call("POST", "/api/setup", account, 201)


@contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    """PostgreSQL may run as another user, who must reach it. It is kept where something failed in it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    yield folder
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
