"""
Tools: named functions that a worker offers, described by a JSON Schema, and what they answer.

The shapes are those of the Model Context Protocol
(https://modelcontextprotocol.io/specification/2025-11-25/server/tools). A tool of the user's own is
a function below ``@tool``, in a module that the setting ``tool_modules`` names::

    from hive_jupyter import tool

    @tool(read_only=True)
    def row_count(path: str) -> str:
        '''How many rows a CSV file has.'''
        return str(sum(1 for _ in open(path)) - 1)
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from hive_jupyter.errors import ToolError
from hive_jupyter.units import nearest

# Seconds that a tool may take where nobody says otherwise.
TOOL_TIMEOUT = 120.0
# As much of a result is sent, in bytes of JSON; more is superlinearly slow in MCP's stdio.
LARGEST_RESULT = 256 * 2**10
LONGEST_NAME = 128
# Blocks of a result that are looked at; more of them take longer than their bytes.
MOST_BLOCKS = 5000

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}
_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_SHOWN = 60


@dataclass(frozen=True)
class Tool:
    """
    A function that a worker offers, described as MCP describes one.

    Attributes:
        name: unique in the worker.
        description: for a person and an agent.
        input_schema: JSON Schema of the arguments' object.
        read_only: it changes nothing.
        destructive: it may delete or overwrite; without meaning where it is read_only.
        idempotent: to call it again with the same arguments changes nothing more; what is
            read_only is that, too.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be called again where nobody knows what became of the first call."""
        return self.read_only or self.idempotent

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The JSON Schema of each argument, by name, in the order in which people think of them."""
        properties = self.input_schema.get("properties")
        return properties if isinstance(properties, Mapping) else {}

    @property
    def required(self) -> tuple[str, ...]:
        """The arguments that must be there."""
        names = self.input_schema.get("required")
        listed = names if isinstance(names, list) else []
        return tuple(name for name in listed if isinstance(name, str))

    @property
    def obvious(self) -> str | None:
        """The argument that is meant where only one is given, and not by name."""
        return next(iter((*self.required, *self.arguments)), None)

    def to_wire(self) -> dict[str, Any]:
        """The shape that MCP's ``tools/list`` has."""
        return {
            "name": self.name,
            "description": self.description,
            "inputSchema": dict(self.input_schema),
            "annotations": {
                "readOnlyHint": self.read_only,
                "destructiveHint": self.destructive and not self.read_only,
                "idempotentHint": self.is_repeatable,
                "openWorldHint": False,
            },
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Tool:
        """
        The inverse of ``to_wire``, for what a worker or another server says of itself.

        Raises:
            ToolError: it has no name, or its schema is none of an object.
        """
        name, schema = wire.get("name"), wire.get("inputSchema")
        if not isinstance(name, str) or not name:
            msg = "A tool without a name."
            raise ToolError(msg)
        if len(name) > LONGEST_NAME or not name.isprintable() or " " in name:
            msg = f"A tool whose name has spaces or more than {LONGEST_NAME} characters."
            raise ToolError(msg)
        if not isinstance(schema, dict) or schema.get("type") != "object":
            msg = f'The tool "{name}" has no schema of an object for its arguments.'
            raise ToolError(msg)
        hints = wire.get("annotations")
        hints = hints if isinstance(hints, dict) else {}
        read_only = hints.get("readOnlyHint") is True
        return cls(
            name=name,
            description=str(wire.get("description") or ""),
            input_schema=schema,
            read_only=read_only,
            destructive=hints.get("destructiveHint") is not False and not read_only,
            idempotent=hints.get("idempotentHint") is True,
        )

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Hold arguments against the schema, as far as the tools of Hive use JSON Schema.

        Returns:
            The arguments; a whole number that came as 2.0 is 2.

        Raises:
            ToolError: one is missing, too many, or of the wrong type; says which, and what is
                expected.
        """
        for name in arguments:
            if name not in self.arguments:
                near = nearest(str(name), self.arguments)
                msg = (
                    f'{self.name} has no argument "{str(name)[:_SHOWN]}".{near} {self._signature()}'
                )
                raise ToolError(msg)
        missing = [name for name in self.required if name not in arguments]
        if missing:
            msg = f"{self.name} needs {' and '.join(missing)}. {self._signature()}"
            raise ToolError(msg)
        for name, value in arguments.items():
            complaint = _complaint(value, self.arguments[name])
            if complaint:
                said = repr(value)
                said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]} ..."
                msg = f"{self.name}: {name} has to be {complaint}, and not {said}."
                raise ToolError(msg)
        return {name: _as_meant(value, self.arguments[name]) for name, value in arguments.items()}

    def _signature(self) -> str:
        if not self.arguments:
            return "It takes none."
        words = (n if n in self.required else f"[{n}]" for n in self.arguments)
        return f"Its arguments: {', '.join(words)}."


def _complaint(value: object, schema: object) -> str | None:
    """What a value has to be, where it is something else; a word that is no schema asks nothing."""
    if not isinstance(schema, Mapping):
        return None
    choices = schema.get("enum")
    if isinstance(choices, list):
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds] if isinstance(kinds, str) else []
    if kinds and not any(_is_a(value, kind) for kind in kinds):
        return " or ".join(_NAMES.get(kind, str(kind)) for kind in kinds)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum"), schema.get("maximum")
        if isinstance(least, (int, float)) and value < least:
            return f"at least {least}"
        if isinstance(most, (int, float)) and value > most:
            return f"at most {most}"
    if isinstance(value, list) and "items" in schema:
        for entry in value:
            if complaint := _complaint(entry, schema["items"]):
                return f"a list whose entries are each {complaint}"
    return None


def _as_meant(value: Any, schema: object) -> Any:
    """JSON has one kind of number; Python has two."""
    whole = isinstance(schema, Mapping) and schema.get("type") == "integer"
    return int(value) if whole and isinstance(value, float) else value


def _is_a(value: object, kind: object) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(str(kind), (object,)))


# What a tool answers


@dataclass(frozen=True)
class ToolContent:
    """
    One block of a tool's result, as MCP has it.

    Attributes:
        type: "text", "image", "audio", "resource_link" or "resource".
        text: of a text, or of a resource.
        data: of an image or audio, base64.
        mime_type: of the data, such as "image/png".
        uri: of a resource.
        name: of a resource.
    """

    type: str
    text: str = ""
    data: str = ""
    mime_type: str = ""
    uri: str = ""
    name: str = ""

    def to_wire(self) -> dict[str, Any]:
        """The shape that MCP gives it."""
        if self.type in ("image", "audio"):
            return {"type": self.type, "data": self.data, "mimeType": self.mime_type}
        if self.type == "resource_link":
            return {"type": self.type, "uri": self.uri, "name": self.name}
        if self.type == "resource":
            held = {"blob": self.data} if self.data else {"text": self.text}
            kind = {"mimeType": self.mime_type} if self.mime_type else {}
            return {"type": self.type, "resource": {"uri": self.uri, **kind, **held}}
        return {"type": "text", "text": self.text}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> ToolContent:
        """The inverse of ``to_wire``; what cannot be understood becomes text that says so."""
        kind = str(wire.get("type"))
        resource = wire.get("resource")
        source = resource if kind == "resource" and isinstance(resource, dict) else wire
        if kind not in ("text", "image", "audio", "resource_link", "resource"):
            return cls("text", f"[a block of type {kind[:_SHOWN]}]")
        return cls(
            type=kind,
            text=str(source.get("text") or ""),
            data=str(source.get("data") or source.get("blob") or ""),
            mime_type=str(source.get("mimeType") or ""),
            uri=str(source.get("uri") or ""),
            name=str(source.get("name") or ""),
        )

    def __str__(self) -> str:
        if self.type in ("text", "resource"):
            return self.text
        if self.type == "resource_link":
            return self.uri
        return f"[{self.type}, {self.mime_type}]"


@dataclass(frozen=True)
class ToolResult:
    """
    What a tool answered, in the shape of MCP's CallToolResult.

    Attributes:
        content: blocks of text, images and others, in order.
        is_error: the tool failed; the text says why, and what to do.
        structured_content: the same as data, where there is structure: a dict, or None.
    """

    content: tuple[ToolContent, ...]
    is_error: bool = False
    structured_content: Mapping[str, Any] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return "\n".join(map(str, self.content))

    @property
    def trouble(self) -> str:
        """What went wrong, in short; "" where nothing did."""
        if not self.is_error:
            return ""
        raised = self.structured_content or {}
        return f"{raised['ename']}: {raised.get('evalue')}" if "ename" in raised else str(self)

    def to_wire(self) -> dict[str, Any]:
        """The shape of the answer to MCP's ``tools/call``."""
        wire = {"content": [block.to_wire() for block in self.content], "isError": self.is_error}
        if self.structured_content is not None:
            wire["structuredContent"] = dict(self.structured_content)
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> ToolResult:
        """The inverse of ``to_wire``; what is no block, or one too many, is left out."""
        blocks, structure = wire.get("content"), wire.get("structuredContent")
        blocks = blocks if isinstance(blocks, list) else []
        content = [
            ToolContent.from_wire(block)
            for block in blocks[:MOST_BLOCKS]
            if isinstance(block, dict)
        ]
        if len(blocks) > MOST_BLOCKS:
            left_out = len(blocks) - MOST_BLOCKS
            content.append(ToolContent("text", f"[Cut: {left_out} blocks more.]"))
        return cls(
            content=tuple(content),
            is_error=wire.get("isError") is True,
            structured_content=structure if isinstance(structure, dict) else None,
        )

    @classmethod
    def failure(cls, text: str) -> ToolResult:
        """A result that says what went wrong."""
        return cls((ToolContent("text", text),), is_error=True)

    @classmethod
    def of(cls, value: object) -> ToolResult:
        """
        The result that a tool's return value means.

        Args:
            value: text, a dict (structure, whose JSON is also the text), a ToolResult, or None.

        Raises:
            ToolError: it is of another type, or no JSON.
        """
        if isinstance(value, ToolResult):
            return value
        if value is None or isinstance(value, str):
            return cls((ToolContent("text", value or ""),))
        if isinstance(value, dict):
            try:
                text = json.dumps(value, indent=2, ensure_ascii=False)
            except (TypeError, ValueError) as error:
                msg = f"it returned a dict that is no JSON: {error}"
                raise ToolError(msg) from None
            return cls((ToolContent("text", text),), structured_content=value)
        msg = f"it returned {type(value).__name__}; a tool returns text, a dict or a ToolResult"
        raise ToolError(msg)


def check_sendable(name: str, arguments: Mapping[str, Any]) -> int:
    """
    See that a call's arguments can be written as JSON, and that as UTF-8.

    Returns:
        Bytes that they take.

    Raises:
        ToolError: they cannot.
    """
    try:
        return len(json.dumps(dict(arguments), ensure_ascii=False).encode())
    except UnicodeEncodeError:
        msg = (
            f"The arguments of {name} hold half a character (a lone surrogate), which no file "
            "can. Read what it came from with the right encoding."
        )
        raise ToolError(msg) from None
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"The arguments of {name} cannot be written as JSON: {error}"
        raise ToolError(msg) from None


def within(result: ToolResult, limit: int, rest: str = "") -> ToolResult:
    """
    Cut a result that is too large, and say what was cut.

    Args:
        result: of a tool.
        limit: bytes that its JSON may have.
        rest: how to get what was cut, as a sentence.

    Returns:
        The result itself where it is small enough. Else the structure goes first, then whole blocks
        that are not text, then the ends of texts.
    """
    if _size(result) <= limit:
        return result
    kept: list[ToolContent] = []
    # the note, and the frame around the blocks
    left = limit - 400 - len(rest.encode())
    cut = 0
    for block in result.content:
        size = len(json.dumps(block.to_wire()))
        if size <= left:
            kept.append(block)
            left -= size + 2
            continue
        cut += len(block.text.encode(errors="replace")) or len(block.data)
        if block.type == "text" and left > 0:
            beginning = head(block.text, left - 64)
            cut -= len(beginning.encode(errors="replace"))
            kept.append(ToolContent("text", beginning))
            left = 0
    note = f"[Cut: {cut} bytes more than the {limit} that a result may have.{rest and ' '}{rest}]"
    if not cut:
        note = f"[The structured content was left out: a result may have {limit} bytes.]"
    return ToolResult((*kept, ToolContent("text", note)), result.is_error)


def head(text: str, size: int) -> str:
    """The beginning of a text, of at most ``size`` bytes of JSON; whole lines where possible."""
    low, high = 0, min(len(text), max(size, 0))
    while low < high:
        middle = (low + high + 1) // 2
        if len(json.dumps(text[:middle])) <= size:
            low = middle
        else:
            high = middle - 1
    line_end = text.rfind("\n", 0, low) + 1
    return text[: line_end if line_end > low // 2 else low]


def _size(result: ToolResult) -> int:
    return len(json.dumps(result.to_wire()))


# What a running tool may ask for


@dataclass(frozen=True)
class Call:
    """
    The call that a tool serves.

    Attributes:
        limit: bytes of JSON that its result may have.
        report: tells how far it is: done, total (or None), and a word on what it does.
    """

    limit: int
    report: Callable[[float, float | None, str], None]


_CALL: ContextVar[Call] = ContextVar("hive_tool_call")
_NOBODYS_CALL = Call(LARGEST_RESULT, lambda *_: None)


def current_call() -> Call:
    """The call that this code serves."""
    return _CALL.get(_NOBODYS_CALL)


def serve(call: Call, function: Callable[..., Any], arguments: Mapping[str, Any]) -> ToolResult:
    """Have a tool's function serve a call."""
    token = _CALL.set(call)
    try:
        return ToolResult.of(function(**arguments))
    finally:
        _CALL.reset(token)


# Tools of the user's own

REGISTERED: dict[str, tuple[Tool, Callable[..., Any]]] = {}


def tool(
    function: Callable[..., Any] | None = None,
    *,
    read_only: bool = False,
    destructive: bool = True,
    idempotent: bool = False,
) -> Callable[..., Any]:
    """
    Make a function a tool of the worker that imports it, under its own name.

    Its docstring is the description. The arguments' schemas come from their annotations: str, int,
    float, bool, list, dict, Literal, unions of those, or ``Annotated[..., "what it means"]``.

    Args:
        function: that returns text, a dict, a ToolResult or None.
        read_only: it changes nothing.
        destructive: it may delete or overwrite.
        idempotent: to call it again changes nothing more; such a tool is tried again on a fresh
            worker where its worker died.

    Raises:
        ToolError: it has no docstring, or an annotation that has no JSON Schema.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        if not inspect.getdoc(function):
            msg = f"The tool {name} needs a docstring: it tells agents and people what it does."
            raise ToolError(msg)
        described = Tool(
            name=name,
            description=str(inspect.getdoc(function)),
            input_schema=_schema_of(function),
            read_only=read_only,
            destructive=destructive and not read_only,
            idempotent=idempotent,
        )
        REGISTERED[name] = (described, function)
        return function

    return register if function is None else register(function)


def _schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    properties, required = {}, []
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            msg = f"The tool {function.__name__} takes *{name}; name each argument."
            raise ToolError(msg)
        properties[name] = _schema(hints.get(name, str), f"{function.__name__}: {name}")
        if parameter.default is parameter.empty:
            required.append(name)
        elif parameter.default is not None:
            _check_default(parameter.default, f"{function.__name__}: {name}")
            properties[name] = {**properties[name], "default": parameter.default}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _schema_of_union(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One of several schemas; as plain as it can be, for whoever reads a word as a value."""
    null = {"type": "null"}
    choices = [choice for part in parts for choice in part.get("enum", ())]
    if choices and all("enum" in part or part == null for part in parts):
        return {"enum": [*choices, None] if null in parts else choices}
    if any(not isinstance(part.get("type"), str) for part in parts):
        return {"anyOf": parts}
    # what else they say is of one type alone, such as of a list's items
    merged = {key: value for part in parts for key, value in part.items()}
    return {**merged, "type": [part["type"] for part in parts]}


def _check_default(value: object, where: str) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        msg = f"{where} has the default {value!r}, which no JSON can hold. Use None, and set it."
        raise ToolError(msg) from None


def _schema(hint: Any, where: str) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        texts = [text for text in arguments[1:] if isinstance(text, str)]
        described = {"description": texts[0]} if texts else {}
        return {**_schema(arguments[0], where), **described}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return _schema_of_union([_schema(part, where) for part in arguments])
    if origin in (list, Sequence):
        return {"type": "array", "items": _schema(arguments[0], where)}
    plain = origin or hint
    by_type = {
        str: "string",
        int: "integer",
        float: "number",
        bool: "boolean",
        list: "array",
        dict: "object",
        type(None): "null",
    }
    if plain not in by_type:
        msg = f"{where} is annotated with {hint!r}, which has no JSON Schema. Use str, int, ..."
        raise ToolError(msg)
    return {"type": by_type[plain]}
