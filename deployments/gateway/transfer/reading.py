"""What both readers make of a file, and how they refuse one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from deployments.gateway.transfer.schemas import FileConversation, PlacedMessage
from deployments.problems import ProblemError


@dataclass(frozen=True)
class Reading:
    """A conversation that can be imported; its messages depth first."""

    conversation: FileConversation
    messages: list[PlacedMessage]


Reader = Callable[[bytes], Reading]


def fault(place: str, message: str, status: int = 422) -> ProblemError:
    """A refusal that says where in the file something is wrong."""
    return ProblemError(status, "RGP.VALIDATION", f"{place}: {message}", [{"place": place, "message": message}])


def faults(error: ValidationError, place_of: Callable[[Sequence[int | str]], str]) -> ProblemError:
    """The same for what Pydantic found; the first five are told."""
    found = [
        {"place": place_of(item["loc"]), "message": item["msg"].removeprefix("Value error, ")}
        for item in error.errors(include_url=False, include_input=False, include_context=False)[:5]
    ]
    message = "; ".join(f"{item['place']}: {item['message']}" for item in found)
    return ProblemError(422, "RGP.VALIDATION", message, found)
