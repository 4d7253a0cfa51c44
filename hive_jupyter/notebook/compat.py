"""
Every touch of an internal of IPython or ipykernel, one small function each.

``tests/test_compat.py`` holds each of them against the real thing, with the lowest ipykernel that
Hive allows and with the newest. A kernel's shell has ``.kernel``; a terminal's has none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from comm.base_comm import BaseComm
from IPython.core import page as page_module
from IPython.core.displaypub import CapturingDisplayPublisher

from hive_jupyter.units import wrapped

if TYPE_CHECKING:
    from IPython.core.completer import SimpleCompletion
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Configurable


# Where the header is among the parts of a message; the signature comes before.
_HEADER = 1


def kernel_of(shell: InteractiveShell) -> Any | None:
    """The ipykernel that the shell belongs to, or None in a terminal."""
    return getattr(shell, "kernel", None)


def connection_file_of(kernel: Any) -> str:
    """The file that tells front-ends how to reach the kernel, or "" where there is none."""
    return str(getattr(kernel.parent, "connection_file", ""))


def parent_of(shell: Any) -> dict[str, Any]:
    """
    The request that the calling thread works for, in a kernel.

    The shell is asked and not the kernel, because ``shell.set_thread_parent`` pins a user's thread
    to its cell. Before the first request there is none, and the dictionary is empty.
    """
    parent: dict[str, Any] = shell.get_parent()
    return parent


def header_of(parent: dict[str, Any]) -> dict[str, Any] | None:
    """
    The header under which a worker runs what the calling cell delegates.

    Args:
        parent: from ``parent_of``.

    Returns:
        A copy of the cell's own header, without what concerns the host kernel alone, or None where
        nobody calls. A click on a widget runs code too: its header becomes an execute_request's.
    """
    header = dict(parent.get("header", parent))
    if not header:
        return None
    header.pop("subshell_id", None)
    header["msg_type"] = "execute_request"
    return header


def allows_stdin(parent: dict[str, Any]) -> bool:
    """Whether the front-end that sent the request answers to ``input()``."""
    return bool(parent.get("content", {}).get("allow_stdin", False))


def tags_of(parent: dict[str, Any]) -> list[str]:
    """The tags of the calling cell, where the front-end sends them with its request."""
    tags = parent.get("metadata", {}).get("tags", ())
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def execution_count(shell: Any) -> int:
    """The number of the cell that runs; newer shells count on before it runs."""
    count: int = shell.displayhook.prompt_count
    return count


def publish(
    kernel: Any,
    message_type: str,
    content: Mapping[str, Any],
    *,
    parent: dict[str, Any],
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Any] = (),
) -> None:
    """Send a message to the front-ends as the output of the request ``parent``."""
    topic = f"kernel.{kernel.ident}.{message_type}"
    if message_type == "stream":
        topic = f"stream.{content['name']}"
    kernel.session.send(
        kernel.iopub_socket,
        message_type,
        content,
        metadata=metadata,
        parent=parent,
        ident=topic.encode(),
        buffers=list(buffers) or None,
    )


def is_kernel_stream(kernel: Any, stream: Any) -> bool:
    """
    Whether what is written to ``stream`` goes to the front-ends, and nowhere else.

    False where somebody captures it, echoes it to a terminal or hooks into it.
    """
    thread = getattr(stream, "pub_thread", None)
    return (
        thread is not None
        and thread is getattr(kernel, "iopub_thread", None)
        and getattr(stream, "echo", None) is None
        and not getattr(stream, "_hooks", ())
    )


def is_kernel_display(shell: Any) -> bool:
    """Whether what is displayed goes to the front-ends, and nowhere else."""
    publisher = shell.display_pub
    socket = getattr(publisher, "pub_socket", None)
    return (
        socket is not None
        and socket is shell.kernel.iopub_socket
        and not getattr(publisher, "store_display_history", False)
        and not getattr(publisher, "_hooks", ())
    )


def is_capturing(shell: Any) -> bool:
    """Whether ``%%capture`` or ``capture_output`` collects what is displayed."""
    return isinstance(shell.display_pub, CapturingDisplayPublisher)


def flush_streams() -> None:
    """
    Send what the calling thread printed.

    ipykernel's ``flush`` waits for its I/O thread, which takes half a millisecond, even where there
    is nothing to send. What that thread sends already will precede whatever comes now.
    """
    for stream in (sys.stdout, sys.stderr):
        waiting = getattr(stream, "_written", None)  # of a kernel that hive-provisioner started
        if waiting is None:
            waiting = getattr(stream, "_buffers", True)
        if waiting:
            stream.flush()


def ask_front_end(kernel: Any, prompt: str, *, password: bool) -> str:
    """
    Ask the person at the front-end of the calling cell.

    Raises:
        StdinNotImplementedError: that front-end cannot ask.
        EOFError: the person ended the input.
    """
    answer: str = (kernel.getpass if password else kernel.raw_input)(prompt)
    return answer


def add_payload(shell: Any, payload: Mapping[str, Any]) -> None:
    """Have the cell's reply ask the front-end for something: to show a pager, say."""
    shell.payload_manager.write_payload(dict(payload))


def page(data: Mapping[str, Any]) -> None:
    """Show text in the terminal's pager, or print it where there is none."""
    page_module.page(dict(data))


def print_result(shell: Any, data: dict[str, Any]) -> None:
    """Show a value the way a terminal shows ``Out[n]``; ``data`` is keyed by MIME type."""
    hook = shell.displayhook
    hook.start_displayhook()
    hook.write_output_prompt()
    hook.write_format_data(data, {})
    hook.finish_displayhook()


def render_as(error: BaseException, traceback: list[str]) -> None:
    """Let IPython show these lines for the exception instead of Hive's own stack."""
    setattr(error, "_render_traceback_", lambda: traceback)  # noqa: B010  not declared anywhere


def render_briefly(error: BaseException) -> None:
    """Let IPython show the exception's message alone, in lines that a front-end need not break."""
    render_as(error, wrapped(f"{type(error).__name__}: {error}"))


def rendered(error: BaseException) -> list[str]:
    """The lines that IPython would show for an exception that brings its own traceback."""
    render: Callable[[], list[str]] | None = getattr(error, "_render_traceback_", None)
    return render() if render else [f"{type(error).__name__}: {error}"]


def has_colours(shell: Any) -> bool:
    """Whether the shell shows tracebacks in colours; "NoColor" is the name in older ones."""
    return bool(shell.colors.lower() != "nocolor")


def find_magic(shell: InteractiveShell, kind: str, name: str) -> Callable[..., Any] | None:
    """Who answers to the "line" or "cell" magic of that name."""
    found: Callable[..., Any] | None = shell.magics_manager.magics[kind].get(name)
    return found


def add_magic(shell: Any, kind: str, name: str, function: Callable[..., Any]) -> None:
    """Let ``function`` answer to the "line" or "cell" magic of that name."""
    shell.register_magic_function(function, kind, name)


def remove_magic(shell: InteractiveShell, kind: str, name: str) -> None:
    """Forget a magic; IPython itself can only add them."""
    shell.magics_manager.magics[kind].pop(name, None)


class _NoCompletions:
    """No completion, which counts as one."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[SimpleCompletion]:
        return iter(())


# What a matcher answers where nothing at all is to be offered: IPython asks the others, too, where
# one of them suppresses the rest and has nothing itself.
NO_COMPLETIONS = cast("Sequence[SimpleCompletion]", _NoCompletions())


def add_matcher(shell: Any, matcher: Callable[..., Any]) -> None:
    """Ask ``matcher`` too when somebody presses Tab."""
    shell.Completer.custom_matchers.append(matcher)


def remove_matcher(shell: Any, matcher: Callable[..., Any]) -> None:
    """Do so no more."""
    if matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(matcher)


def ask_first(kernel: Any, inspect: Callable[[str, int, int], str | None]) -> None:
    """Have ``inspect`` answer to Shift-Tab where it knows; it is given code, place and detail."""
    own = kernel.do_inspect

    def do_inspect(code: str, cursor_pos: int, detail_level: int = 0, *others: Any) -> Any:
        text = inspect(code, cursor_pos, detail_level)
        if text is None:
            return own(code, cursor_pos, detail_level, *others)
        data = {"text/plain": text} if text else {}
        return {"status": "ok", "found": bool(text), "data": data, "metadata": {}}

    kernel.do_inspect = do_inspect


def ask_no_more(kernel: Any) -> None:
    """Do so no more."""
    vars(kernel).pop("do_inspect", None)


class _Comm(BaseComm):
    """Stands in the list of comms for one that is a worker's; nothing of it is the kernel's."""

    def publish_msg(self, *_: Any, **__: Any) -> None:
        """The worker speaks for itself."""


def has_comm(kernel: Any, name: str) -> bool:
    """Whether the kernel knows a comm of that id."""
    return name in kernel.comm_manager.comms


def add_comm(kernel: Any, name: str, target: str) -> None:
    """Have the kernel name a comm to front-ends that ask for all of them."""
    kernel.comm_manager.comms[name] = _Comm(target, comm_id=name, primary=False)


def remove_comm(kernel: Any, name: str) -> None:
    """Do so no more."""
    kernel.comm_manager.comms.pop(name, None)


def hear_comms_first(kernel: Any, hear: Callable[[Mapping[str, Any]], bool]) -> None:
    """
    Offer what front-ends say through comms to ``hear`` before the kernel gets it.

    The kernel's own way is as long as the running cell, with some front-ends. Where a kernel has no
    thread for its shell channel, nothing is offered.

    Args:
        kernel: of the notebook.
        hear: is called on that thread with each message, its content parsed; True takes it away.
    """
    own = kernel.shell_channel_thread_main

    def take(frames: list[Any]) -> Any:
        message = _comm_message(kernel.session, frames)
        return None if message is not None and hear(message) else own(frames)

    _hear_with(kernel, take)


def hear_comms_no_more(kernel: Any) -> None:
    """Do so no more."""
    _hear_with(kernel, type(kernel).shell_channel_thread_main.__get__(kernel))


def _hear_with(kernel: Any, take: Callable[[list[Any]], Any]) -> None:
    thread = getattr(kernel, "shell_channel_thread", None)
    if thread is not None:
        # for a kernel that starts, and for one that has
        kernel.shell_channel_thread_main = take
        thread.io_loop.add_callback(kernel.shell_stream.on_recv, take, copy=False)


def _comm_message(session: Any, frames: list[Any]) -> Mapping[str, Any] | None:
    """The message, with its content, if it is one for a comm and signed."""
    _, parts = session.feed_identities(frames, copy=False)
    if len(parts) < _HEADER + 1 or b'"comm_' not in bytes(parts[_HEADER].bytes):
        return None
    try:
        # the content stays as it is, or the kernel would take it for a message that came twice
        message: dict[str, Any] = session.deserialize(parts, content=False, copy=False)
        content = session.unpack(message["content"])
    except Exception:  # the kernel's own reading tells of it
        return None
    return {**message, "content": content} if isinstance(content, dict) else None


def add_configurable(shell: Any, configurable: Configurable) -> None:
    """Let ``%config`` show and set its traits."""
    shell.configurables.append(configurable)


def remove_configurable(shell: Any, configurable: Configurable) -> None:
    """Do so no more."""
    if configurable in shell.configurables:
        shell.configurables.remove(configurable)


def add_display(shell: Any, kind: type, display: Callable[[Any], object]) -> None:
    """Have values of a class displayed by ``display``, also as the value of a cell."""
    shell.display_formatter.ipython_display_formatter.for_type(kind, display)


def remove_display(shell: Any, kind: type) -> None:
    """Do so no more."""
    shell.display_formatter.ipython_display_formatter.type_printers.pop(kind, None)
