"""A front-end for a real kernel: sends cells, collects what comes back, answers questions."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Empty

from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[1]

# ipykernel before 7.4 may leave a request that comes while it replies unread for ever, with or
# without Hive. A worker is mended (worker/compat.py); the user's kernel is not ours to mend.
MEND = """
manager = get_ipython().kernel.shell_channel_thread.manager
if hasattr(manager, "_shell_socket"):
    manager._shell_socket = get_ipython().kernel.shell_stream
del manager
"""


@dataclass
class Played:
    """What one cell brought."""

    reply: dict
    messages: list

    @property
    def key(self):
        """The msg_id of its request."""
        return self.messages[0]["parent_header"]["msg_id"]

    def of(self, *types):
        return [message["content"] for message in self.messages if message["msg_type"] in types]

    def stream(self, name="stdout"):
        return "".join(part["text"] for part in self.of("stream") if part["name"] == name)

    @property
    def order(self):
        """What there is to see, in its order."""
        seen = []
        for message in self.messages:
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and seen and seen[-1][0] == content["name"]:
                seen[-1] = (content["name"], seen[-1][1] + content["text"])
            elif kind == "stream":
                seen.append((content["name"], content["text"]))
            elif kind in {"display_data", "update_display_data", "execute_result"}:
                seen.append((kind, content["data"].get("text/plain")))
            elif kind in {"clear_output", "error"}:
                seen.append((kind, content.get("ename")))
        return seen


class FrontEnd:
    """One kernel with one client; a context manager."""

    def __init__(self, folder, **environment):
        self.folder = folder
        self._environment = environment

    def __enter__(self):
        self.manager = KernelManager(
            kernel_name=NATIVE_KERNEL_NAME,
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(self.folder / "kernel.json"),
        )
        self.manager.start_kernel(
            cwd=str(self.folder),
            env={
                # in a test ipykernel would not watch what C code and children write
                **{key: value for key, value in os.environ.items() if "PYTEST" not in key},
                "IPYTHONDIR": str(self.folder / "ipython"),
                "PYTHONPATH": os.pathsep.join(
                    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
                ),
                # on a machine that stands still for a while, what is in order is not fast either
                "HIVE_JUPYTER_INTERRUPT_GRACE": "20",
                "HIVE_JUPYTER_CONNECT_TIMEOUT": "60",
                **self._environment,
            },
        )
        assert self.manager.kernel_spec.argv[0] == sys.executable
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.client.execute(MEND, silent=True)
        assert self.client.get_shell_msg(timeout=60)["content"]["status"] == "ok"
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        # or else that is left to the garbage collector, which may find the context first and warn
        self.client.context.destroy(linger=0)

    @property
    def pid(self):
        return self.manager.provisioner.process.pid

    def play(self, code, *, answers=None, on_message=None, timeout=60):
        """
        Run a cell to its end.

        ``answers`` maps prompts to what is typed, or to what is done instead; None means that
        stdin is not allowed;
        ``on_message`` is called with each message.
        """
        deadline = time.monotonic() + timeout
        key = self.client.execute(code, allow_stdin=answers is not None)
        messages = []
        while True:
            self._answer(answers)
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except Empty:
                assert time.monotonic() < deadline, f"still running: {code!r}, {messages}"
                continue
            if message["parent_header"].get("msg_id") != key:
                continue
            messages.append(message)
            if on_message is not None:
                on_message(message)
            if message["content"].get("execution_state") == "idle":
                break
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"]["msg_id"] == key:
                return Played(reply["content"], messages)

    def complete(self, code, position=None):
        """The words that Tab offers."""
        key = self.client.complete(code, position)
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"]["msg_id"] == key:
                return reply["content"]

    def inspect(self, code, position=None):
        """What Shift-Tab shows."""
        key = self.client.inspect(code, position)
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"]["msg_id"] == key:
                return reply["content"]

    def _answer(self, answers):
        if answers is None:
            return
        try:
            question = self.client.get_stdin_msg(timeout=0)
        except Empty:
            return
        answer = answers[question["content"]["prompt"]]
        if callable(answer):
            answer()
        else:
            self.client.input(answer)
