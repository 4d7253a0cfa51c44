"""
Widgets of a confined worker: which reach the front-end, and with what in them.

A widget is a model in the worker and one in the page, which tell each other their state. Only
models that ``traits`` knows pass, their state is built anew of what their traits may hold, and they
refer only to models of the same worker that passed.
"""

from __future__ import annotations

import html as escapes
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hive_jupyter.display import images, markup, rules, traits
from hive_jupyter.display.text import fetching_nothing, line, plain
from hive_jupyter.display.traits import Kind, Model

TARGET = "jupyter.widget"
VIEW = "application/vnd.jupyter.widget-view+json"
# The front-end takes no comm_open without it; what a worker says there is not passed on.
METADATA: Mapping[str, Any] = {"version": "2.1.0"}

_REFERENCE = "IPY_MODEL_"
_ID = re.compile(r"[0-9a-f-]{1,64}")
_LONGEST_NAME = 100
_MOST_REFUSED = 100
# At one time, and ever: an id that is closed may not come back, so it has to be known.
_MOST_OPEN = 10_000
_MOST_EVER = 200_000
# Of one widget with all that is in it, and how deep that is nested: a page makes a view for each.
_MOST_VIEWS = 2000
_DEEPEST = 50
# Of all widgets of a worker: places in which one is shown in another; and Outputs that take, at one
# time, what is shown.
_MOST_SHOWN = 20_000
_MOST_CAPTURES = 100
_MOST_OUTPUTS = 1000
_MOST_FORMS = 100
_MOST_CHILDREN = 1000
# These ask for what a worker does not have; where nothing is asked by getpass, they do not, either.
_ASKING = frozenset({"PasswordModel", "FileUploadModel"})
_LAYOUT = "LayoutModel"
_HARMLESS_CLASSES = frozenset({"widget-interact"})
_PICTURES = sorted(images.KINDS)

_Key = tuple[str, str, str]
_End = tuple[str, str]


class Models:
    """
    The widgets of one worker. Belongs to whoever takes its messages in order.

    Args:
        rule: "framed" or "inert", see ``display.rules``.
        worker: its name.
        prefix: of all ids in the page, which nobody else's begin with. A notebook tells those of
            widgets that it showed before, and what is opened under one would be shown there again.
    """

    def __init__(self, rule: str, worker: str, prefix: str = "") -> None:
        self._rule = rule
        self._worker = worker
        self._prefix = prefix
        # By id; None: closed.
        self._models: dict[str, tuple[_Key, Model] | None] = {}
        self._open = 0
        # By id: what is shown in it as its state says, and what was shown while it took outputs.
        self._below: dict[str, list[str]] = {}
        self._taken: dict[str, set[str]] = {}
        # By the id of an Output: the message id of which it takes what is shown.
        self._captures: dict[str, str] = {}
        # By the id of a link: its ends.
        self._links: dict[str, tuple[_End, _End]] = {}
        self._refused: dict[str, None] = {}

    def public(self, identity: str) -> str:
        """What a model is called in the page."""
        return f"{self._prefix}{self.private(identity)}"

    def private(self, identity: str) -> str:
        """What a model is called in the worker."""
        return identity.removeprefix(self._prefix)

    def passed(
        self,
        kind: str,
        content: Mapping[str, Any],
        buffers: Sequence[Any],
        cell: str,
    ) -> tuple[dict[str, Any], list[Any]] | None:
        """
        What may pass of a message, with its buffers; None: nothing.

        Args:
            kind: "comm_open", "comm_msg" or "comm_close".
            content: of the message, as Jupyter's protocol has it.
            buffers: of the message.
            cell: the message id of the request that is its cause, as long as the worker works on
                that; an Output may take what is shown for it.
        """
        identity, data = content.get("comm_id"), content.get("data")
        if not isinstance(identity, str) or _ID.fullmatch(self.private(identity)) is None:
            return None
        identity = self.public(identity)
        data = data if isinstance(data, Mapping) else {}
        if kind == "comm_open":
            found = self._opened(identity, content, _State(data, buffers), cell)
        elif kind == "comm_msg":
            found = self._updated(identity, data, _State(data, buffers), cell)
        else:
            found = self._closed(identity)
        if found is None:
            return None
        return {"comm_id": identity, **found[0]}, found[1]

    def view(self, value: object, cell: str = "") -> dict[str, Any] | None:
        """
        What may pass of application/vnd.jupyter.widget-view+json; None: nothing.

        Args:
            value: of that form.
            cell: the message id of the request that it is shown for. An Output may take it.
        """
        identity = value.get("model_id") if isinstance(value, Mapping) else None
        if not isinstance(identity, str) or not self._is_shown(self.public(identity)):
            return None
        identity = self.public(identity)
        takers = [output for output, taken in self._captures.items() if cell and taken == cell]
        if not self._take_also(takers, identity):
            return None
        return {"version_major": 2, "version_minor": 0, "model_id": identity}

    def release(self, cell: str) -> list[dict[str, Any]]:
        """
        Contents of comm_msg that keep Outputs from taking what else is shown for a request.

        To be sent when the worker has answered it: what an Output takes is sent to the worker, and
        the same cell may go on to show what is not the worker's.
        """
        released = [output for output, taken in self._captures.items() if taken == cell]
        for output in released:
            del self._captures[output]
        data = {"method": "update", "state": {"msg_id": ""}, "buffer_paths": []}
        return [{"comm_id": output, "data": data} for output in released]

    def take_refused(self) -> list[str]:
        """The names of what was refused since this was asked last, each once."""
        names, self._refused = list(self._refused), {}
        return names

    def _opened(
        self,
        identity: str,
        content: Mapping[str, Any],
        said: _State,
        cell: str,
    ) -> tuple[dict[str, Any], list[Any]] | None:
        if identity in self._models:
            return None
        target = content.get("target_name")
        if target != TARGET:
            self._refuse(target if isinstance(target, str) else "")
            return None
        key = said.text("_model_module"), said.text("_model_module_version"), said.name
        model = traits.MODELS.get(key)
        is_full = self._open >= _MOST_OPEN or len(self._models) >= _MOST_EVER
        if model is None or is_full or (self._rule == rules.INERT and said.name in _ASKING):
            self._refuse(f"{key[2]} ({key[0]} {key[1]})")
            return None
        self._models[identity] = key, model
        self._open += 1
        state, paths, buffers = self._state(identity, model, said, cell)
        if not {"children", "outputs"}.isdisjoint(model.traits):
            self._below.setdefault(identity, [])
        if "source" in model.traits and "source" not in state:
            self._closed(identity)
            self._refuse(f"{key[2]} ({key[0]} {key[1]})")
            return None
        data = {"state": {**_names(key, model), **state}, "buffer_paths": paths}
        return {"target_name": TARGET, "data": data}, buffers

    def _updated(
        self,
        identity: str,
        data: Mapping[str, Any],
        said: _State,
        cell: str,
    ) -> tuple[dict[str, Any], list[Any]] | None:
        known, method = self._models.get(identity), data.get("method")
        if known is None or method not in ("update", "echo_update"):
            return None
        if method == "echo_update":
            # the front-end has what it sent, and what frames are in it would not stay the same
            said.drop("outputs")
        state, paths, buffers = self._state(identity, known[1], said, cell)
        if not state and not paths:
            return None
        if said.name:  # to a page that was loaded again, which knows nothing of it
            state = {**_names(*known), **state}
        return {"data": {"method": method, "state": state, "buffer_paths": paths}}, buffers

    def _closed(self, identity: str) -> tuple[dict[str, Any], list[Any]] | None:
        if self._models.get(identity) is None:
            return None
        self._models[identity] = None
        self._open -= 1
        for kept in (self._below, self._taken, self._captures, self._links):
            kept.pop(identity, None)
        return {"data": {}}, []

    def _refuse(self, name: str) -> None:
        if len(self._refused) < _MOST_REFUSED:
            self._refused[line(name, _LONGEST_NAME)] = None

    def _state(
        self, identity: str, model: Model, said: _State, cell: str
    ) -> tuple[dict[str, Any], list[list[str]], list[bytes]]:
        """What may pass of a state: plain values, the paths of buffers, and buffers."""
        state: dict[str, Any] = {}
        pictures: dict[str, bytes] = {}
        for name, kind in model.traits.items():
            if kind is traits.PICTURE:
                picture = said.buffers.get(name)
                if picture is not None and _is_picture(picture):
                    pictures[name] = picture
            elif name in said.values and kind is not traits.END:
                found = self._value(identity, kind, said.values[name], cell)
                if found is not _NOTHING:
                    state[name] = found
        if "source" in model.traits:
            state |= self._joined(identity, said)
        return state, [[name] for name in pictures], list(pictures.values())

    def _value(self, identity: str, kind: Kind, value: Any, cell: str) -> Any:
        """A trait's value as it may pass, or _NOTHING."""
        if kind is traits.LAYOUT:
            return self._reference(value, lambda name: name == _LAYOUT)
        if kind is traits.STYLE:
            return self._reference(value, lambda name: name.endswith("StyleModel"))
        if kind is traits.CHILDREN:
            return self._children(identity, value)
        if kind is traits.OUTPUTS:
            return self._outputs(identity, value)
        if kind is traits.CAPTURE:
            return self._capture(identity, value, cell)
        if not kind.allows(value):
            return _NOTHING
        if kind is traits.CLASSES:
            return [name for name in value if name in _HARMLESS_CLASSES]
        if kind is traits.NO_HTML:
            return False
        if kind is traits.HTML:
            return _html(value)
        return fetching_nothing(value) if kind.link == "text" and value else value

    def _is_shown(self, identity: object) -> bool:
        """Whether an id is that of a model of which there are views of its own."""
        known = self._models.get(identity) if isinstance(identity, str) else None
        return known is not None and "layout" in known[1].traits

    def _referred(self, value: object) -> str | None:
        """The id of the model that a value refers to, if that is open."""
        if not isinstance(value, str) or not value.startswith(_REFERENCE):
            return None
        identity = self.public(value[len(_REFERENCE) :])
        return identity if self._models.get(identity) is not None else None

    def _reference(self, value: object, fits: Callable[[str], bool]) -> str | None:
        identity = self._referred(value)
        known = self._models.get(identity) if identity is not None else None
        return f"{_REFERENCE}{identity}" if known is not None and fits(known[0][2]) else None

    def _children(self, identity: str, value: object) -> Any:
        if not isinstance(value, list) or len(value) > _MOST_CHILDREN:
            return _NOTHING
        children = [child for child in map(self._referred, value) if self._is_shown(child)]
        if not self._takes(identity, [child for child in children if child is not None]):
            return _NOTHING
        return [f"{_REFERENCE}{child}" for child in children]

    def _takes(self, identity: str, below: list[str]) -> bool:
        """Show these in a model, if what is to be shown then has an end, and is not too much."""
        before = self._below.get(identity)
        self._below[identity] = below
        # what is new is in nothing else
        if self._fits([identity] if before is None else [*self._below, *self._taken]):
            return True
        self._below[identity] = before or []
        return False

    def _take_also(self, outputs: Iterable[str], identity: str) -> bool:
        """Show a model in Outputs that take what is shown in a cell, on the same condition."""
        new = [each for each in outputs if identity not in self._taken.setdefault(each, set())]
        for output in new:
            self._taken[output].add(identity)
        if not new or self._fits([*self._below, *self._taken]):
            return True
        for output in new:
            self._taken[output].remove(identity)
        return False

    def _fits(self, shown: Iterable[str]) -> bool:
        # all of it is looked at
        if sum(map(len, (*self._below.values(), *self._taken.values()))) > _MOST_SHOWN:
            return False
        known: dict[str, tuple[int, int]] = {}
        return all(self._views(identity, known)[0] <= _MOST_VIEWS for identity in shown)

    def _views(self, identity: str, known: dict[str, tuple[int, int]]) -> tuple[int, int]:
        """How many views a model's view consists of, and how deep they are nested."""
        if identity in known:
            return known[identity]
        # met again while it is counted, it has no end
        known[identity] = _MOST_VIEWS + 1, 0
        views, depth = 1, 0
        below = self._below.get(identity, [])
        for place, inner in enumerate([*below, *self._taken.get(identity, ())]):
            more, deep = self._views(inner, known)
            # of those that it has taken, it may show none any more
            views += more if place < len(below) or more > _MOST_VIEWS else 0
            depth = max(depth, deep + 1)
            if views > _MOST_VIEWS or depth > _DEEPEST:
                return _MOST_VIEWS + 1, depth
        known[identity] = views, depth
        return views, depth

    def _capture(self, identity: str, value: object, cell: str) -> str:
        self._captures.pop(identity, None)
        if not cell or value != cell or len(self._captures) >= _MOST_CAPTURES:
            return ""
        self._captures[identity] = cell
        return cell

    def _outputs(self, identity: str, value: object) -> Any:
        if not isinstance(value, list) or len(value) > _MOST_OUTPUTS:
            return _NOTHING
        outputs = [output for output in map(self._output, value) if output is not None]
        shown = [
            output["data"][VIEW]["model_id"] for output in outputs if VIEW in output.get("data", ())
        ]
        if not self._takes(identity, shown):
            return _NOTHING
        self._taken.pop(identity, None)
        return outputs

    def _output(self, said: object) -> dict[str, Any] | None:
        """An output within a widget's state, as any other output may be shown."""
        if not isinstance(said, Mapping):
            return None
        kind = said.get("output_type")
        if kind == "stream":
            content = _stream(said)
        elif kind == "error":
            content = {name: said.get(name, "") for name in ("ename", "evalue", "traceback")}
        elif kind in ("display_data", "execute_result"):
            content = _display(said)
        else:
            return None
        if content is None:
            return None
        view = self.view(content["data"][VIEW]) if VIEW in content.get("data", ()) else None
        if view is not None:
            del content["data"][VIEW]
        passed = {"output_type": kind, **rules.passed(self._rule, str(kind), content, self._worker)}
        if view is not None:
            passed["data"][VIEW] = view
        if kind == "execute_result":
            passed.setdefault("execution_count", None)
        return passed

    def _joined(self, identity: str, said: _State) -> dict[str, Any]:
        """The ends of a link between traits of the same sort; nothing where they are none."""
        ends = self._links.get(identity, (None, None))
        source = self._end(said.values["source"]) if "source" in said.values else ends[0]
        target = self._end(said.values["target"]) if "target" in said.values else ends[1]
        if source is None or target is None or self._sort(source) != self._sort(target):
            return {}
        # in a circle, views that correct each other's values would never come to rest
        if _leads(source, target, [ends for link, ends in self._links.items() if link != identity]):
            return {}
        self._links[identity] = source, target
        return {
            name: [f"{_REFERENCE}{end[0]}", end[1]]
            for name, end in (("source", source), ("target", target))
        }

    def _sort(self, end: _End) -> str:
        known = self._models.get(end[0])
        return known[1].traits[end[1]].link if known is not None else ""

    def _end(self, value: object) -> _End | None:
        """A trait that the page may copy from and to."""
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], str):
            return None
        identity = self._referred(value[0])
        known = self._models.get(identity) if identity is not None else None
        kind = known[1].traits.get(value[1]) if known is not None else None
        return (identity, value[1]) if identity and kind is not None and kind.link else None


_NOTHING = object()


def _names(key: _Key, model: Model) -> dict[str, str | None]:
    """The traits by which a page finds the code of a model and of its view."""
    return {
        **dict(zip(("_model_module", "_model_module_version", "_model_name"), key, strict=True)),
        **dict(
            zip(("_view_module", "_view_module_version", "_view_name"), model.view, strict=True)
        ),
    }


class _State:
    """
    A state as a worker says it.

    Args:
        data: of a message.
        buffers: of the message.
    """

    def __init__(self, data: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        state, paths = data.get("state"), data.get("buffer_paths")
        self.values = dict(state) if isinstance(state, Mapping) else {}
        self.buffers = {
            path[0]: bytes(buffer)
            for path, buffer in zip(paths if isinstance(paths, list) else [], buffers, strict=False)
            if isinstance(path, list)
            and len(path) == 1
            and isinstance(path[0], str)
            and isinstance(buffer, (bytes, bytearray, memoryview))
        }
        self.name = self.text("_model_name")

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def drop(self, name: str) -> None:
        self.values.pop(name, None)


def _leads(start: _End, end: _End, links: Iterable[tuple[_End, _End]]) -> bool:
    """Whether one trait is joined with another, by however many links."""
    joined: dict[_End, list[_End]] = {}
    for one, other in links:
        joined.setdefault(one, []).append(other)
        joined.setdefault(other, []).append(one)
    seen, waiting = {start}, [start]
    while waiting:
        further = set(joined.get(waiting.pop(), ())) - seen
        seen |= further
        waiting += further
    return end in seen


def _html(value: str) -> str:
    """HTML as in an output, but in no frame: what needs one is left without script and style."""
    html = plain(value)
    return markup.rebuilt(html) if markup.is_short(html) else f"<pre>{escapes.escape(html)}</pre>"


def _is_picture(data: bytes) -> bool:
    # a browser looks at what it is, not at what it is said to be
    return not data or any(images.is_one(kind, data) for kind in _PICTURES)


def _stream(said: Mapping[str, Any]) -> dict[str, Any] | None:
    text = said.get("text")
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = "".join(text)
    return {"name": said.get("name"), "text": text} if isinstance(text, str) else None


def _display(said: Mapping[str, Any]) -> dict[str, Any] | None:
    data, metadata = said.get("data"), said.get("metadata")
    if not isinstance(data, Mapping) or len(data) > _MOST_FORMS:
        return None
    content = {"data": dict(data), "metadata": metadata if isinstance(metadata, Mapping) else {}}
    return content | {name: said[name] for name in ("execution_count",) if name in said}
