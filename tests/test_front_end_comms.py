"""Which of what workers say of comms reaches a front-end, without a kernel."""

import threading
import time
from types import SimpleNamespace

import pytest

from hive_jupyter.notebook.comms import VIEW, FrontEndComms, Publisher
from hive_jupyter.swarm.messages import Message


class Kernel:
    """What a notebook's kernel has of what is needed."""

    ident = "k"
    iopub_socket = None

    def __init__(self):
        self.said = []
        self.session = SimpleNamespace(send=self._send)
        self.comm_manager = SimpleNamespace(comms={"of the notebook": None})

    def shell_channel_thread_main(self, frames):
        """Nothing comes this way."""

    def _send(self, _socket, kind, content, **_):
        self.said.append((kind, content))

    @property
    def kinds(self):
        return [kind for kind, _ in self.said]


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def comms(kernel):
    return FrontEndComms(kernel, lambda *_: None)


def opening(comm):
    return Message("comm_open", {"comm_id": comm, "target_name": "jupyter.widget", "data": {}})


def of(kind, comm):
    return Message(kind, {"comm_id": comm})


def view(comm, text="a slider", kind="display_data", **transient):
    data = {VIEW: {"model_id": comm}, "text/plain": text}
    return Message(kind, {"data": data, "metadata": {}, "transient": transient})


def test_the_end_of_a_worker_is_told_where_its_widget_is_shown(kernel, comms):
    publish = comms.publisher("coder", {})
    for message in (opening("a"), view("a"), of("comm_lost", "a")):
        publish(message)

    assert ["comm_open", "display_data", "update_display_data", "comm_close"] == kernel.kinds
    shown, ended = kernel.said[1][1], kernel.said[2][1]
    assert shown["transient"] == ended["transient"]
    assert ended["data"] == {
        "text/plain": 'a slider\n(Its worker "coder" has ended. Run the cell again.)'
    }
    assert list(kernel.comm_manager.comms) == ["of the notebook"]


def test_a_display_that_shows_something_else_by_then_is_left_alone(kernel, comms):
    publish = comms.publisher("coder", {})
    something = Message(
        "update_display_data", {"data": {"text/plain": "b"}, "transient": {"display_id": "d"}}
    )
    for message in (opening("a"), view("a", display_id="d"), something, of("comm_lost", "a")):
        publish(message)

    assert ["comm_open", "display_data", "update_display_data", "comm_close"] == kernel.kinds


@pytest.mark.parametrize("kind", ["comm_lost", "comm_close"])
def test_a_comm_that_ended_before_the_cell_came_to_open_it_is_never_opened(kernel, comms, kind):
    # an end comes on the way of what is said now, its beginning on that of what is said late
    publish = comms.publisher("coder", {})
    for message in (of(kind, "a"), opening("a"), of("comm_msg", "a"), view("a")):
        publish(message)

    assert [("display_data", {"text/plain": "a slider"})] == [
        (kind, content["data"]) for kind, content in kernel.said
    ]
    assert "a" not in kernel.comm_manager.comms


def test_nobody_speaks_for_a_comm_of_others(kernel, comms):
    comms.publisher("one", {})(opening("a"))
    other = comms.publisher("two", {})
    for comm in ("a", "of the notebook"):
        for message in (opening(comm), of("comm_msg", comm), of("comm_close", comm)):
            other(message)

    assert ["comm_open"] == kernel.kinds


def test_where_front_ends_cannot_be_heard_widgets_are_text(kernel):
    publish = Publisher(kernel, {}, "coder", None)
    for message in (opening("a"), view("a"), of("comm_lost", "a")):
        publish(message)

    assert [{"text/plain": "a slider"}] == [content["data"] for _, content in kernel.said]


def test_the_end_of_many_widgets_that_are_shown_often_is_told_in_time(comms):
    publish = comms.publisher("coder", {})
    for number in range(3000):
        publish(opening(str(number)))
        for _ in range(10):
            publish(view(str(number)))
    began = time.process_time()
    for number in range(3000):
        publish(of("comm_lost", str(number)))
    assert time.process_time() - began < 1.5


def test_what_ends_while_it_is_opened_is_told_in_this_order(kernel, comms):
    publish = comms.publisher("coder", {})
    opens, goes_on = threading.Event(), threading.Event()
    send = kernel.session.send

    def slow(socket, kind, content, **options):
        if kind == "comm_open":
            opens.set()
            goes_on.wait(10)
        send(socket, kind, content, **options)

    kernel.session.send = slow
    cell = threading.Thread(target=publish, args=(opening("a"),))
    cell.start()
    assert opens.wait(10)
    portal = threading.Thread(target=publish, args=(of("comm_lost", "a"),))
    portal.start()
    portal.join(0.2)
    goes_on.set()
    for thread in (cell, portal):
        thread.join(10)

    assert ["comm_open", "comm_close"] == kernel.kinds
