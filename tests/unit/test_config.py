"""The configuration: defaults < file < environment, and faults told in plain words."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.config import ConfigError, bundled_model_file, load_settings
from tests.support.product import environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUSTYGPT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return tmp_path


def test_defaults_are_enough() -> None:
    settings = load_settings()
    assert settings.server.host == "127.0.0.1"
    assert settings.llm.models["default"].file() == bundled_model_file()


def test_environment_wins_over_file(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clean / "rustygpt.toml").write_text("[server]\nport = 9001\n[turn]\nlease_seconds = 7\n")
    monkeypatch.setenv("RUSTYGPT__SERVER__PORT", "9002")
    settings = load_settings()
    assert (settings.server.port, settings.turn.lease_seconds) == (9002, 7)


def test_database_url_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://somebody:secret@host/db")
    url = load_settings().db.url
    assert url is not None
    assert url.get_secret_value() == "postgres://somebody:secret@host/db"
    assert "secret" not in repr(load_settings())


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("RUSTYGPT__SERVER__PORT", "x", "server.port"),
        ("RUSTYGPT__SERVER__PORT", "70000", "server.port"),
        ("RUSTYGPT__SERVER__PROT", "1", "server.prot: no such setting"),
        ("RUSTYGPT__NOTHING__AT_ALL", "1", "RUSTYGPT__NOTHING__AT_ALL: no such setting"),
        ("RUSTYGPT__LLM__DEFAULT_MODEL", "other", "'other' is none of llm.models (default)"),
        ("RUSTYGPT__PRESENCE__OFFLINE_SECONDS", "45", "presence: offline_seconds must be more than away_seconds"),
        ("DATABASE_URL", "mysql://host/db", "db.url: must begin with postgres://"),
        ("RUSTYGPT_CONFIG", "missing.toml", "missing.toml"),
    ],
)
def test_fault_names_the_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str, fault: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert fault in str(caught.value)


@pytest.mark.parametrize(("given", "used", "warnings"), [("1", 24, 1), ("24", 24, 0), ("72", 72, 0), ("100", 72, 1)])
def test_retention_is_clamped_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: str, used: int, warnings: int
) -> None:
    monkeypatch.setenv("RUSTYGPT__RETENTION__HOURS", given)
    # As `configure_logs` leaves it in a process that serves, no record passes the product's own loggers.
    monkeypatch.setattr(logging.getLogger("deployments"), "propagate", True)
    assert load_settings().retention.hours == used
    assert len([record for record in caplog.records if "24 to 72" in record.getMessage()]) == warnings


def test_file_that_is_no_toml_is_told(clean: Path) -> None:
    (clean / "rustygpt.toml").write_text("[server\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings()


def test_config_show_masks_secrets(clean: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "cli", "config", "show"],
        env=environment(clean, DATABASE_URL="postgres://somebody:hunter2@host/db", RUSTYGPT__SERVER__PORT="9003"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown = yaml.safe_load(result.stdout)
    assert shown["server"]["port"] == 9003
    assert shown["db"]["url"]
    assert "hunter2" not in result.stdout
