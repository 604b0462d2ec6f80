"""A conversation as Markdown that people can read and that can be imported again without loss.

After the front matter (`key: JSON`, which is YAML, too) each message begins with a line
`<!-- rustygpt:message {…} -->`, which says all about it but its content. The lines after it, up to the first empty
one, are for people. Then comes the content as it is, and an empty line. `<!-- rustygpt:end -->` closes the file, so
that one that was cut off is noticed. A line of content that looks like such a mark gets a backslash before it.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import orjson
from pydantic import ValidationError

from deployments.gateway.transfer.reading import Reading, fault, faults
from deployments.gateway.transfer.schemas import MOST_MESSAGES, FileConversation, FileHead, PlacedMessage

MARK = re.compile(r"^<!-- rustygpt:(.*)$", re.MULTILINE)
LOOKS_LIKE_MARK = re.compile(r"^(?=\\*<!-- rustygpt:)", re.MULTILINE)
ESCAPED_MARK = re.compile(r"^\\(?=\\*<!-- rustygpt:)", re.MULTILINE)
FRONT_MATTER = re.compile(r"---\n(.*?)^---$\n?", re.MULTILINE | re.DOTALL)
EMPTY_LINE = re.compile(r"^\n", re.MULTILINE)
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


class MarkdownWriter:
    """Writes a file piece by piece."""

    media_type = "text/markdown; charset=utf-8"
    suffix = "md"

    def __init__(self) -> None:
        self._open_fence = ""  # of the latest message
        self._numbers: list[int] = []  # of the latest message and those above it
        self._count = 0

    def head(self, head: dict[str, Any]) -> str:
        """Front matter, and the title as a heading."""
        values = {k: v for k, v in head.items() if k != "conversation"} | head["conversation"]
        lines = "".join(f"{name}: {orjson.dumps(value).decode()}\n" for name, value in values.items())
        return f"---\n{lines}---\n\n# {_one_line(head['conversation']['title'])}\n\n"

    def message(self, depth: int, part: str) -> str:
        """One message, of the JSON that the database made."""
        message: dict[str, Any] = orjson.loads(part)
        content = message.pop("content")
        del message["id"], message["parent_id"]
        said = {"depth": depth} | {name: value for name, value in message.items() if value not in (None, False)}
        # Escaped, a `>` cannot end the comment.
        mark = f"<!-- rustygpt:message {orjson.dumps(said).decode().replace('>', chr(92) + 'u003e')} -->\n"
        fence = f"{self._open_fence}\n" if self._open_fence else ""
        self._open_fence = open_fence(content)
        return f"{mark}{fence}{self._for_people(depth, message, content)}\n\n{_escape(content)}\n\n"

    def _for_people(self, depth: int, message: dict[str, Any], content: str) -> str:
        self._count += 1
        self._numbers[depth - 1 :] = [self._count]
        heading = f"## {_one_line(message['title'] or content) or 'Thread'}\n" if depth == 1 else ""
        answers = f" to #{self._numbers[-2]}" if depth > 1 else ""
        time = message["created_at"][:19].replace("T", " ")
        state = " · deleted" if message["deleted"] else " · edited" if message["edited_at"] else ""
        author = _one_line(message["author"] or message["role"])
        return f"{heading}**#{self._count} {author}**{answers} · {time} UTC{state}"

    def end(self) -> str:
        """What closes the file."""
        return "<!-- rustygpt:end -->\n"


def read_markdown(body: bytes) -> Reading:
    """Raises ProblemError that names the line: 400 where it is no text, 422 where it is no such file."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(f"byte {error.start}", "the file is not UTF-8", 400) from None
    if text.startswith("---\r\n"):  # an editor changed all ends of lines; exports begin without
        text = text.replace("\r\n", "\n")
    matter = FRONT_MATTER.match(text)
    if not matter:
        raise fault("line 1", "the file must begin with front matter between two lines of `---`")
    conversation = _read_front_matter(matter[1])
    messages: list[PlacedMessage] = []
    line, counted = 1, 0
    marks = list(islice(MARK.finditer(text, matter.end()), MOST_MESSAGES + 2))
    if len(marks) > MOST_MESSAGES + 1:
        raise fault("the file", f"it has more than {MOST_MESSAGES} messages")
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        line, counted = line + text.count("\n", counted, mark.start()), mark.start()
        if mark[1] == "end -->":
            if text[mark.end() :].strip():
                raise fault(f"line {line}", "something stands after the end of the file")
            return Reading(conversation, messages)
        if following is None:
            break
        depth = messages[-1].depth if messages else 0
        messages.append(_read_message(f"line {line}", mark[1], text[mark.end() + 1 : following.start()], depth))
    lines = text.count("\n") + 1
    raise fault(f"line {lines}", "the file ends without `<!-- rustygpt:end -->`: a part of it is missing")


def _read_front_matter(matter: str) -> FileConversation:
    values: dict[str, Any] = {}
    lines: dict[str | int, int] = {}
    for number, line in enumerate(matter.split("\n")[:-1], start=2):
        name, colon, value = line.partition(": ")
        try:
            if not colon or name in values:
                raise ValueError
            values[name] = orjson.loads(value)
        except ValueError:
            raise fault(
                f"line {number}", "front matter is made of lines `name: value in JSON`, each name once"
            ) from None
        lines[name] = number
    of_file = {name: values.pop(name) for name in list(values) if name in FileHead.model_fields}
    try:
        FileHead.model_validate(of_file)
        return FileConversation.model_validate(values)
    except ValidationError as error:
        raise faults(error, lambda place: f"line {lines.get(place[0], 1)}, {place[0]}") from None


def _read_message(place: str, mark: str, body: str, depth_before: int) -> PlacedMessage:
    if not (mark.startswith("message {") and mark.endswith("} -->")):
        raise fault(place, "this mark is neither `rustygpt:message {…}` nor `rustygpt:end`")
    try:
        fields = orjson.loads(mark.removeprefix("message ").removesuffix(" -->"))
    except orjson.JSONDecodeError as error:
        raise fault(place, f"what stands in the mark is not JSON: {error}") from None
    if "content" in fields:
        raise fault(place, "content stands below the mark, not in it")
    empty = EMPTY_LINE.search(body)
    content = body[empty.end() :] if empty else ""
    content = content.removesuffix("\n\n") if content.endswith("\n\n") else content.removesuffix("\n")
    try:
        message = PlacedMessage.model_validate(fields | {"content": ESCAPED_MARK.sub("", content)})
    except ValidationError as error:
        raise faults(error, lambda loc: ", ".join([place, *map(str, loc)])) from None
    if message.depth > depth_before + 1:
        raise fault(place, f"depth {message.depth} follows depth {depth_before}: the message between is missing")
    return message


def _escape(content: str) -> str:
    return LOOKS_LIKE_MARK.sub(r"\\", content)


def _one_line(text: str) -> str:
    return " ".join(text[:400].split())[:80]


def open_fence(content: str) -> str:
    """The fence that closes a code block which `content` leaves open, so that the next message is none of it."""
    fence = ""
    for line in content.split("\n"):
        found = FENCE.match(line)
        if not found:
            continue
        marks, rest = found.groups()
        if not fence:
            fence = "" if marks[0] == "`" and "`" in rest else marks
        elif marks[0] == fence[0] and len(marks) >= len(fence) and not rest.strip():
            fence = ""
    return fence
