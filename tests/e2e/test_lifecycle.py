"""Starting, stopping and starting again, as an operator does it. Each test runs a product of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from db.embedded import EmbeddedPostgres
from deployments.haproxy import free_port
from tests.chaos.external_postgres import external_postgres
from tests.support.person import PASSWORD, Event, Person
from tests.support.product import RUSTYGPT, Product, environment

ACCOUNT = {"username": "admin", "email": "admin@example.org", "password": PASSWORD}
LONG_QUESTION = "Write a long story about a ship and its crew."


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rgpt-test-"))
    folder.chmod(0o755)
    yield folder / "home"
    EmbeddedPostgres(folder / "home" / "postgres").stop()
    shutil.rmtree(folder, ignore_errors=True)


def run_serve(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """`rustygpt serve` where it is expected to refuse."""
    return subprocess.run(
        [*RUSTYGPT, "serve", *arguments],
        env=environment(home, **extra),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check_refusal(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, and one plain line that says what is wrong."""
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("rustygpt: ")
    for word in words:
        assert word in lines[0], lines[0]


def test_answers_go_on_after_a_stop_and_after_a_kill_of_everything(home: Path) -> None:
    product = Product(home)
    product.start()
    try:
        person = Person(product.url, "admin")
        person.call("POST", "/api/setup", ACCOUNT, 201)
        conversation = person.sign_in().converse()
        for end in (product.interrupt, product.kill):
            posted = person.ask(conversation, LONG_QUESTION)
            before: list[Event] = []
            with person.stream(conversation, posted["cursor"]) as stream:
                while sum(event.type == "message.delta" for event in before) < 5:
                    before.append(next(stream))
            left = product.processes()
            end()
            if end == product.interrupt:
                assert not [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
                found = psutil.process_iter(["cmdline"])
                assert not [p for p in found if str(home) in " ".join(p.info["cmdline"] or [])]
            product.start()
            events = before + person.follow(conversation, before[-1].id)
            assert [int(e.id) for e in events] == list(range(int(posted["cursor"]) + 1, int(events[-1].id) + 1))
            stored = person.message(posted["root_id"], posted["assistant_message_id"])
            assert "".join(event.text for event in events) == stored["content"]
            assert sum(event.type == "message.done" for event in events) == 1
            assert open_ports(product) == set()
    finally:
        product.stop()


def open_ports(product: Product) -> set[int]:
    """Ports of the product that other machines can reach."""
    return {
        connection.laddr.port
        for process in product.processes()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip.removeprefix("::ffff:") not in ("127.0.0.1", "::1")
    }


@pytest.mark.usefixtures("postgresql_program")
def test_external_postgres_and_open_host_need_and_open_no_more_than_documented(home: Path) -> None:
    with external_postgres(home.parent / "external") as (url, _):
        product = Product(home, DATABASE_URL=url, RUSTYGPT__SERVER__HOST="0.0.0.0")
        try:
            product.start()
            assert open_ports(product) == {product.port}
            person = Person(product.url, "admin")
            person.call("POST", "/api/setup", ACCOUNT, 201)
            conversation = person.sign_in().converse()
            posted = person.ask(conversation, "Say hello.")
            assert person.follow(conversation, posted["cursor"])[-1].payload["finish_reason"] == "stop"
            assert not (home / "postgres").exists()
        finally:
            product.stop()


def test_port_in_use_is_one_plain_line(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        check_refusal(run_serve(home, "--port", port), port, "--port")


def test_second_start_with_the_same_home_is_refused(product: Product) -> None:
    check_refusal(run_serve(product.home, "--port", str(free_port())), str(product.home), "RUSTYGPT_HOME")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://nobody@127.0.0.1:1/none", ("cannot be reached",)),
        ("postgres://u:hunter2@no-such-host.invalid/db", ("cannot be reached",)),
        ("mysql://u@h/db", ("postgres://",)),
    ],
)
def test_unreachable_database_is_one_plain_line(home: Path, url: str, words: tuple[str, ...]) -> None:
    result = run_serve(home, "--port", str(free_port()), DATABASE_URL=url)
    check_refusal(result, *words)
    assert "hunter2" not in result.stderr


def test_model_file_that_is_missing_or_no_model_is_one_plain_line(home: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("not a model")
    for path, words in (
        ("/no/such/model.gguf", ("does not exist",)),
        (str(text), ("not a GGUF",)),
        (str(tmp_path), ("not a file",)),
    ):
        result = run_serve(home, "--port", str(free_port()), RUSTYGPT__LLM__MODELS__default__PATH=path)
        check_refusal(result, "llm.models.default.path", *words)


def test_truncated_model_file_is_one_plain_line(home: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    from deployments.config import bundled_model_file

    cut.write_bytes(bundled_model_file().read_bytes()[:200_000])
    result = run_serve(home, "--port", str(free_port()), RUSTYGPT__LLM__MODELS__default__PATH=str(cut))
    check_refusal(result, str(cut))


def test_unknown_setting_is_one_plain_line(home: Path) -> None:
    check_refusal(run_serve(home, RUSTYGPT__SERVER__PROT="1"), "server.prot", "no such setting")


def test_home_that_cannot_be_made_is_one_plain_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    check_refusal(run_serve(file / "home"), "data directory")
