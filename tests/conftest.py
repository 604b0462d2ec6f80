"""One Postgres server and one running product for the whole run; a fresh database for each module."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from db.embedded import EmbeddedPostgres
from db.pool import Database, Grant
from deployments.config import bundled_model_file
from deployments.model.engine import Tuning, Tunings
from tests.support import programs
from tests.support.person import PASSWORD, Person
from tests.support.product import TUNING, Product

# No test depends on how fast the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_databases = itertools.count(1)


@pytest.fixture(scope="session")
def run_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the shared product. Postgres may run as another user, who must reach its folder."""
    home = tmp_path_factory.mktemp("run") / "home"
    home.mkdir()
    for folder in (home, *home.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o711)
    return home


@pytest.fixture(scope="session")
def postgres(run_home: Path) -> Iterator[str]:
    """Superuser's address of the run's server, which the shared product uses, too."""
    server = EmbeddedPostgres(run_home / "postgres")
    yield server.start()
    server.stop()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before the first test, and only for what the chosen tests need: ends the run if a program of the system is
    missing, and measures how this machine runs the model, which takes minutes, once a machine and in no test's time."""
    if session.config.option.collectonly:
        return
    fixtures = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if complaint := programs.missing(fixtures):
        raise pytest.UsageError(complaint)
    if "tuning" in fixtures:
        Tunings(TUNING).obtain(bundled_model_file(), "auto")


def _program(need: str) -> Callable[[], Path]:
    @pytest.fixture(scope="session", name=f"{need}_program")
    def path() -> Path:
        """Path of a program of the system, which `pytest_collection_finish` has found."""
        return programs.find(need)

    return path


browser_program, prometheus_program, promtool_program, postgresql_program, curl_program = map(_program, programs.NEEDS)


@pytest.fixture(scope="session")
def tuning() -> Tuning:
    """How this machine runs the bundled model: measured once a machine."""
    return Tunings(TUNING).obtain(bundled_model_file(), "auto")


@pytest.fixture(scope="session")
def product(run_home: Path, postgres: str) -> Iterator[Product]:
    """The running product, set up with the administrator `admin`."""
    product = Product(run_home)
    product.start()
    account = {"username": "admin", "email": "admin@example.org", "password": PASSWORD}
    Person(product.url, "admin").call("POST", "/api/setup", account, 201)
    yield product
    product.stop()


@pytest.fixture(scope="session")
def admin(product: Product) -> Person:
    """The administrator of the shared product, signed in."""
    return Person(product.url, "admin").sign_in()


@pytest.fixture
def person(admin: Person) -> Person:
    """Somebody new, signed in."""
    return admin.invite()


@pytest.fixture(scope="module")
async def database_url(postgres: str) -> AsyncIterator[str]:
    """Superuser's address of a database of its own, empty."""
    name = f"test_{next(_databases)}"
    connection = await asyncpg.connect(postgres)
    await connection.execute(f"create database {name}")
    yield postgres.replace("/postgres?", f"/{name}?")
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


async def connect(url: str) -> Database:
    """A pool of the given role's address."""
    return await Database.connect(Grant(url, 4))
