"""What is asked of a model, and what comes back. Gateway and Model import it; an `Ask` of a stored answer also lies in
the database, as JSON, so that any replica can go on with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

Json = dict[str, Any]
EndReason = Literal["stop", "length", "cancelled", "timeout", "error"]
RefusalKind = Literal["invalid", "too_long", "refused", "queue_full", "failed", "unusable"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. None: as the model is configured. `top_logprobs` None: no log-probabilities."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    top_logprobs: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True)
class Function:
    """A tool that the model may call. `parameters` is a JSON schema of its arguments; {} takes any object."""

    name: str
    description: str = ""
    parameters: Json = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True)
class Tools:
    """`choice`: "auto" leaves it to the model, "required" makes it call, any other value is the function to call."""

    functions: tuple[Function, ...]
    choice: str = "auto"
    parallel: bool = True


@dataclass(frozen=True)
class Ask:
    """One request. Either `messages`, as chat templates take them ("role", "content" a text, "tool_calls",
    "tool_call_id", "name"), or a raw prompt: `text` or `token_ids`.

    The answer follows `json_schema` ({}: any JSON object) or `grammar` (GBNF), where one is given. `user` is whom the
    scheduler is fair to. `seconds` is what the answer may take. `produced_token_ids` were made before: the answer goes
    on after them (only with n = 1). `trims`: the oldest messages are left out where all are too many.
    """

    messages: tuple[Json, ...] = ()
    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    produced_token_ids: tuple[int, ...] = ()
    tools: Tools | None = None
    json_schema: Json | None = None
    grammar: str | None = None
    sampling: Sampling = Sampling()
    n: int = 1
    user: str = ""
    seconds: float = 600.0
    trims: bool = False


ASK = TypeAdapter(Ask)
"""To and from JSON."""


@dataclass(frozen=True)
class Logprob:
    """A token with the natural logarithm of its probability; `top` has the likeliest alternatives, (text, bytes,
    logprob) each."""

    token: str
    raw: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True)
class Started:
    """First: the request was taken, by this replica; it may still wait for its turn."""

    prompt_tokens: int
    replica: str = ""


@dataclass(frozen=True)
class Piece:
    """Text of the `index`-th answer, and the tokens it came from."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class Ended:
    """The end of the `index`-th answer; `message` says why, where `reason` is "error" or "timeout". `stop_string` is
    the one that ended it, None where the model has ended by itself, and for stored answers."""

    index: int
    reason: EndReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    message: str = ""
    stop_string: str | None = None


@dataclass(frozen=True)
class Refused:
    """Instead of all others: the request was not taken. `param` names the fault's place in Ask or Sampling."""

    kind: RefusalKind
    message: str
    param: str | None = None
    retry_after_seconds: float | None = None


Item = Started | Piece | Ended | Refused
"""A stateless answer comes as batches (lists) of them: Started, then for each index Pieces, one Ended; or Refused."""


@dataclass(frozen=True)
class ReturnPath:
    """Where an answer may come to instead of its own stream: the shared stream of this name, which the Gateway reads,
    under this number. Of its openings those in `lost` are not read any more, though the replica may not know yet."""

    shared_stream: str
    number: int
    lost: tuple[int, ...] = ()


@dataclass(frozen=True)
class Switch:
    """The answer goes on in the other stream. At the end of a batch in its own: what follows comes on the shared one,
    on its opening of this number. At the end of one there: its own tells the rest, if only that it has ended."""

    opening: int = 0


SentBatch = list[Item | Switch]
"""As it travels."""
Parcels = dict[int, SentBatch]
"""What a shared stream carries at once: for answers, by their numbers, what is new."""


@dataclass(frozen=True)
class Embedded:
    """A vector of length 1 for each text, and the tokens of all texts together."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: int


@dataclass(frozen=True)
class Tokenized:
    """A text's tokens, and the bytes of each."""

    token_ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
