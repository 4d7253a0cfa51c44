"""What a worker knows is asked while it works: completions, and help on a name."""

import time

import pytest

from hive_jupyter import manager as manager_module
from hive_jupyter.errors import RemoteError, TransferError
from hive_jupyter.manager import HiveManager
from hive_jupyter.swarm.aside import Aside
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.subshell import Subshell
from tests.processes import wait_until


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """On a machine that stands still for a while, what is in order is not fast either."""
    monkeypatch.setattr(manager_module, "_AT_ONCE", 30.0)


def words(found):
    return [word for word, _ in found.words]


def test_a_name_is_completed_from_what_the_worker_has(hive):
    hive.delegate("kept_name = 1; import math")

    name = hive.complete("coder", "x = kept_na", 11)
    assert (words(name), name.start) == (["kept_name"], 4)
    attribute = hive.complete("coder", "math.sq", 7)
    assert "math.sq"[: attribute.start] + words(attribute)[0] == "math.sqrt"


def test_it_stays_so_however_often_one_asks(hive):
    hive.delegate("kept_name = 1")

    for _ in range(10):
        assert words(hive.complete("coder", "kept_na", 7)) == ["kept_name"]


def test_a_name_is_explained(hive):
    hive.delegate("def doubled(x):\n    'Twice as much.'\n    return 2 * x")

    assert "Twice as much." in hive.inspect("coder", "doubled(1)", 3)
    assert "Source:" in hive.inspect("coder", "doubled(1)", 3, 1)
    assert hive.inspect("coder", "nothing_of_that_name", 3) == ""


def test_a_worker_that_is_busy_answers_at_once(hive):
    hive.delegate("kept_name = 1")
    hive.complete("coder", "kept_na", 7)
    run = hive.begin("while True: pass", timeout=None)
    wait_until(lambda: hive.swarm_status()["workers"]["coder"]["state"] == "busy")
    try:
        assert words(hive.complete("coder", "kept_na", 7)) == ["kept_name"]
        assert "int" in hive.inspect("coder", "kept_name", 3)
    finally:
        hive.interrupt("coder")
        with pytest.raises(RemoteError):
            run.outcome()
    assert hive.delegate("kept_name").value_repr == "1"


def test_a_worker_that_has_not_started_is_not_started_for_that(hive):
    assert hive.complete("another", "pri", 3) is None
    assert hive.inspect("another", "print", 3) is None
    assert "another" not in hive.workers()


def test_after_a_restart_the_new_worker_is_asked(hive):
    hive.delegate("kept_name = 1")
    hive.complete("coder", "kept_na", 7)

    hive.restart("coder")

    assert words(hive.complete("coder", "kept_na", 7)) == []


def test_who_does_not_answer_at_once_is_not_waited_for(hive, monkeypatch):
    hive.delegate("import time\nclass Slow:\n    def __dir__(self): time.sleep(60)\nslow = Slow()")
    monkeypatch.setattr(manager_module, "_AT_ONCE", 0.1)
    began = time.monotonic()

    assert hive.complete("coder", "slow.", 5) is None

    assert time.monotonic() - began < 30
    hive.restart("coder")


def test_a_confined_worker_answers(runtime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with HiveManager(connect_timeout=60) as confined:
        confined.delegate("kept_name = 1")

        assert words(confined.complete("coder", "kept_na", 7)) == ["kept_name"]


def test_a_hive_that_is_closed_completes_nothing(runtime):
    with HiveManager(sandbox="open") as closed:
        closed.delegate("1")
    assert closed.complete("coder", "pri", 3) is None


class Lying:
    """Channels of a worker that answers as it likes."""

    def __init__(self, **content):
        self._content = content

    async def request(self, _channel, kind, *_):
        content = {"subshell_id": "x"} if kind.startswith("create") else self._content
        return Message(kind.replace("request", "reply"), content)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"cursor_start": 0},
        {"cursor_start": 0, "matches": "abc"},
        {"cursor_start": -1, "matches": []},
        {"cursor_start": 99, "matches": []},
        {"cursor_start": "0", "matches": []},
    ],
)
async def test_an_answer_that_is_none_is_refused(content):
    with pytest.raises(Exception, match="protocol"):
        await Aside(Lying(**content)).complete("pri", 3)


async def test_of_what_a_worker_offers_only_words_pass():
    good = ["kept", ".kept", "kept.more", "%magic", "%%magic", "kept=", "größe", "_"]
    bad = ["two words", "two\nlines", "", "a" * 1000, 5, None, ["x"], "x\u202e", "'; exec(x)", "-1"]
    metadata = {"_jupyter_types_experimental": [{"text": "kept", "type": "bad type"}, 5, {}]}
    lying = Lying(cursor_start=0, matches=[*good, *bad], metadata=metadata)

    assert words(await Aside(lying).complete("pri", 3)) == good
    many = await Aside(Lying(cursor_start=0, matches=["x"] * 9999)).complete("pri", 3)
    assert len(many.words) == 500


@pytest.mark.parametrize("data", [None, "text", {"text/plain": 5}])
async def test_an_explanation_that_is_none_is_refused(data):
    with pytest.raises(Exception, match="protocol"):
        await Aside(Lying(data=data)).inspect("pri", 3, 0)


async def test_of_an_explanation_its_text_passes():
    data = {"text/plain": "a \x1b[31mred\x1b[39m \x1b]0;title\x07 word", "text/html": "<script>"}

    text = await Aside(Lying(data=data)).inspect("pri", 3, 0)
    assert "\x1b]0" not in text
    assert "\x1b[31mred" in text


@pytest.mark.parametrize("name", [None, 5, "x" * 1_000_000])
async def test_what_is_no_name_of_a_subshell_is_not_repeated_with_each_request(name):
    async def request(*_):
        return Message("create_subshell_reply", {"status": "ok", "subshell_id": name})

    with pytest.raises(TransferError, match="name of a subshell"):
        await Subshell(request).name()
