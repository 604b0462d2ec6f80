"""Parts of request bodies that several routes of /v1 share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Tag,
    field_validator,
    model_validator,
)

from deployments.gateway.schemas import STORABLE
from deployments.gateway.v1.errors import ApiError
from deployments.generation import Function, Json, Sampling, Tools

MOST_STOP = 16
MOST_TOOLS = 128
MOST_LEVELS = 100


class Nested(BaseModel):
    """A part of a request's body. Unknown fields are left out; `ignored` has their names, but for those that are null
    and those in `unremarkable`, which have no effect by their nature."""

    unremarkable: ClassVar[frozenset[str]] = frozenset()
    _ignored: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the fields that were sent and have no effect."""
        return self._ignored

    @model_validator(mode="wrap")
    @classmethod
    def _notice(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(value)
        if isinstance(value, dict):
            expected = _expected(cls)
            made._ignored = tuple(name for name in value if name not in expected and value[name] is not None)
        return made


@cache
def _expected(kind: type[Nested]) -> frozenset[str]:
    return kind.unremarkable.union(field.alias or name for name, field in kind.model_fields.items())


def _ignored_in(body: BaseModel, place: str) -> Iterator[str]:
    """Dotted names of ignored fields; `*` stands for the places in a list."""
    if isinstance(body, Nested):
        yield from (place + name for name in body.ignored)
    for name, value in body.__dict__.items():
        if isinstance(value, BaseModel):
            yield from _ignored_in(value, f"{place}{_sent_as(type(body), name)}.")
        # Lists have items of one kind. Those of token ids are long.
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            inner = f"{place}{_sent_as(type(body), name)}.*."
            for item in value:
                yield from _ignored_in(item, inner)


@cache
def _sent_as(kind: type[BaseModel], name: str) -> str:
    return kind.model_fields[name].alias or name


class OpenBody(BaseModel):
    """A request body whose unknown fields are kept: `warnings` says which were ignored."""

    model_config = ConfigDict(extra="allow")

    def warnings(self, meaningful: Mapping[str, str]) -> list[str]:
        """A sentence for each field that was ignored, nested ones by their dotted names. `meaningful` are fields that
        nobody may ignore, with what to do instead: raises ApiError 400 that names them."""
        unknown = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        for name in unknown:
            if name in meaningful:
                raise unsupported(name, meaningful[name])
        names = dict.fromkeys([*unknown, *_ignored_in(self, "")])
        return [f"{name} is not supported here and was ignored" for name in names]


def unsupported(param: str, instead: str) -> ApiError:
    """400 for what would change the answer's meaning."""
    message = f"`{param}` is not supported. {instead}"
    return ApiError(400, "invalid_request_error", "unsupported_parameter", message, param)


def invalid(param: str, message: str) -> ApiError:
    """400 for a value that cannot be used."""
    return ApiError(400, "invalid_request_error", "invalid_value", message, param)


def _not_too_deep(value: Json) -> Json:
    # Whoever goes through it on its way may do so by recursion.
    level: list[Any] = [value]
    for _ in range(MOST_LEVELS):
        level = [inner for item in level for inner in _members(item)]
        if not level:
            return value
    raise ValueError(f"must have at most {MOST_LEVELS} levels of objects and lists within each other")


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


Text = Annotated[str, STORABLE]
Object = Annotated[Json, AfterValidator(_not_too_deep)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class SamplingFields(OpenBody):
    """How tokens are chosen: OpenAI's fields, then those of local servers. Absent: as the model is configured."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: list[Text] | None = Field(default=None, max_length=MOST_STOP, description="a string, or up to 16 of them")
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    typical_p: float | None = Field(default=None, ge=0, le=1)
    repeat_penalty: float | None = Field(default=None, gt=0, le=10)
    ignore_eos: bool = False

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    def sampling(self, max_tokens: int | None, top_logprobs: int | None) -> Sampling:
        """As the models know it."""
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p or 0.0,
            typical_p=1.0 if self.typical_p is None else self.typical_p,
            repeat_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=self.logit_bias or {},
            # Any integer is a seed for OpenAI's clients; the engine's are not negative.
            seed=None if self.seed is None else self.seed % 2**63,
            top_logprobs=top_logprobs,
            stop=tuple(text for text in self.stop or () if text),
            ignore_eos=self.ignore_eos,
        )


class JsonSchema(Nested):
    """A named schema. It is always followed strictly: the answer's tokens are restricted to it."""

    name: Text = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: Text | None = None
    schema_: Object = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class TextFormat(Nested):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Nested):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Nested):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]

ANY_OBJECT: Json = {"type": "object"}


def schema_of(wanted: TextFormat | JsonObjectFormat | JsonSchemaFormat | None) -> Json | None:
    """What the answer must follow, if anything."""
    match wanted:
        case JsonSchemaFormat():
            return wanted.json_schema.schema_
        case JsonObjectFormat():
            return ANY_OBJECT
    return None


FunctionName = Annotated[Text, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]


class FunctionSpec(Nested):
    """A function that the model may call."""

    name: FunctionName
    description: Text | None = None
    parameters: Object | None = None
    strict: bool | None = None

    def function(self) -> Function:
        """As the models know it."""
        return Function(self.name, self.description or "", self.parameters or {}, bool(self.strict))


def tools_of(
    functions: Iterable[Function], choice: str | None, parallel: bool | None, param: str = "tool_choice"
) -> Tools | None:
    """`choice` is "none", "auto", "required", a function's name, or None for auto. Raises ApiError."""
    known = tuple(functions)
    names = [function.name for function in known]
    if len(set(names)) < len(names):
        raise invalid("tools", "Two tools have the same name.")
    if not known:
        if choice not in (None, "none", "auto"):
            raise invalid(param, f"`{param}` asks for a call, but there are no `tools`.")
        return None
    if choice == "none":
        return None
    if choice not in (None, "auto", "required", *names):
        raise invalid(param, f"`{param}` names the function {choice!r}, which is none of `tools`.")
    return Tools(known, choice or "auto", parallel is not False)


def _kind_of_part(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "text" if kind in ("text", "refusal") else "other"


class TextPart(Nested):
    """A part of a message: text, or an earlier refusal."""

    type: Literal["text", "refusal"]
    text: Text = ""
    refusal: Text = ""

    @property
    def content(self) -> str:
        """What it says."""
        return self.text or self.refusal


class OtherPart(BaseModel):
    """A part that no model here reads."""

    model_config = ConfigDict(extra="allow")
    type: str


ContentPart = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[OtherPart, Tag("other")], Discriminator(_kind_of_part)
]


def text_of(content: str | list[Any] | None, param: str) -> str:
    """A message's content as one text. Raises ApiError for images, audio and files."""
    if content is None or isinstance(content, str):
        return content or ""
    for number, part in enumerate(content):
        if isinstance(part, OtherPart):
            message = f"The models here read text; they cannot read a part of type {part.type!r}."
            raise ApiError(400, "invalid_request_error", "unsupported_content", message, f"{param}.{number}.type")
    return "\n".join(part.content for part in content)
