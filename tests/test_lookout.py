"""Looks at a project after workers ran in it: when, how often, and who is told."""

import asyncio
import threading

import pytest

from hive_jupyter import lookout as module
from hive_jupyter.config import HiveConfig
from hive_jupyter.leftovers.watch import Watch
from hive_jupyter.lookout import Lookout
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm.launch import Kernel, snapshot

pytestmark = pytest.mark.asyncio


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    return tmp_path / "project"


@pytest.fixture
def told():
    return asyncio.Queue()


@pytest.fixture
def lookout(folder, told):
    return Lookout(lambda name, text: told.put_nowait((name, text)))


@pytest.fixture
def looks(monkeypatch):
    """How often somebody looked."""
    seen = []
    real = Watch.look

    def look(watch):
        seen.append(threading.current_thread())
        return real(watch)

    monkeypatch.setattr(Watch, "look", look)
    return seen


def launch(profile="workspace", **policy):
    return snapshot(Kernel(), HiveConfig(), SandboxPolicy(profile, **policy))


async def come(told):
    return await asyncio.wait_for(told.get(), 30)


async def test_what_a_run_left_is_told_to_its_worker_once(lookout, folder, told):
    coder = lookout.watcher("coder")
    await coder.begins(launch())
    (folder / ".envrc").touch()

    coder.rests()

    name, text = await come(told)
    assert "coder" == name
    assert "  .envrc (new): direnv" in text
    assert ['Worker "coder" may have left what your tools act on by themselves: .envrc'] == (
        lookout.notes
    )
    await lookout.look_now()
    assert told.empty()


async def test_what_was_there_before_the_worker_is_the_users(lookout, folder, told, looks):
    (folder / "own/.git").mkdir(parents=True)
    coder = lookout.watcher("coder")
    ended = await coder.begins(launch())
    ended()
    await lookout.look_now()
    (folder / "cloned/.git").mkdir(parents=True)
    looks.clear()

    await coder.begins(launch())

    assert [] == looks
    await lookout.look_now()
    assert told.empty()
    assert (folder / "own/.git").is_dir()
    assert (folder / "cloned/.git").is_dir()


async def test_the_end_of_a_worker_is_followed_by_a_look(lookout, folder, told):
    ended = await lookout.watcher("coder").begins(launch())
    (folder / "sub/.git").mkdir(parents=True)

    ended()
    ended()

    name, _ = await come(told)
    assert "coder" == name
    assert not (folder / "sub/.git").exists()


async def test_after_the_last_look_at_a_dead_worker_all_is_the_users_again(lookout, folder, told):
    coder = lookout.watcher("coder")
    ended = await coder.begins(launch())
    ended()
    await lookout.look_now()
    (folder / ".git").mkdir()

    coder.rests()
    await lookout.look_now()

    assert told.empty()
    assert (folder / ".git").is_dir()


async def test_a_look_at_once_takes_the_place_of_the_next_and_of_no_other(lookout, folder, told):
    coder = lookout.watcher("coder")
    await coder.begins(launch())
    coder.rests()
    await lookout.look_now()
    (folder / ".envrc").touch()

    coder.rests()

    assert ".envrc" in (await come(told))[1]


async def test_another_worker_s_begin_accepts_nothing(lookout, folder, told):
    """What the first left, since nobody has looked, is not taken for the user's."""
    await lookout.watcher("first").begins(launch())
    (folder / ".envrc").touch()

    await lookout.watcher("second").begins(launch())

    assert ("first", True) == ((await come(told))[0], told.empty())


async def test_workers_that_begin_at_once_do_not_accept_what_the_first_of_them_leaves(
    lookout, folder, told
):
    first = asyncio.create_task(lookout.watcher("first").begins(launch()))
    second = asyncio.create_task(lookout.watcher("second").begins(launch()))
    first.add_done_callback(lambda _: (folder / ".envrc").touch())
    await asyncio.gather(first, second)

    await lookout.look_now()

    assert ".envrc" in (await come(told))[1]


async def test_a_worker_that_began_anew_at_once_leaves_nothing_unseen(lookout, folder, told):
    coder = lookout.watcher("coder")
    ended = await coder.begins(launch())
    (folder / ".envrc").touch()
    ended()

    await coder.begins(launch())

    assert ".envrc" in (await come(told))[1]


async def test_of_several_workers_all_are_named(lookout, folder, told):
    for name in ("b", "a"):
        watcher = lookout.watcher(name)
        await watcher.begins(launch())
    (folder / ".envrc").touch()

    watcher.rests()

    name, text = await come(told)
    assert "a" == name
    assert 'Worker "a" or "b" may have' in text


async def test_many_runs_have_one_look_together(lookout, folder, told, looks, monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.2)
    coder = lookout.watcher("coder")
    await coder.begins(launch())
    (folder / ".envrc").touch()
    for _ in range(1000):
        coder.rests()

    await come(told)

    assert 1 == len(looks)
    assert threading.current_thread() not in looks


async def test_looks_follow_each_other(lookout, folder, told, monkeypatch):
    """Two threads in one watch would see halves of things."""
    inside = []
    real = Watch.look

    def look(watch):
        inside.append(1)
        assert 1 == len(inside)
        found = real(watch)
        inside.pop()
        return found

    monkeypatch.setattr(Watch, "look", look)
    watchers = [lookout.watcher(f"w{number}") for number in range(5)]
    await asyncio.gather(*(watcher.begins(launch()) for watcher in watchers))
    for watcher in watchers:
        watcher.rests()
    (folder / ".envrc").touch()
    await lookout.look_now()

    assert ".envrc" in (await come(told))[1]
    assert [] == inside


async def test_where_looking_takes_long_it_is_done_more_seldom(lookout, folder, looks, monkeypatch):
    monkeypatch.setattr(module, "_LEISURE", 10**9)
    coder = lookout.watcher("coder")
    await coder.begins(launch())
    coder.rests()
    (project,) = lookout.projects(launch())
    while not looks:
        await asyncio.sleep(0)
    await project.look_now()
    looks.clear()
    loop = asyncio.get_running_loop()

    coder.rests()

    assert project._timer.when() > loop.time() + 1000
    project._timer.cancel()


@pytest.mark.parametrize(
    ("policy", "is_watched"),
    [(("open",), False), (("strict",), False), (("workspace",), True)],
)
async def test_only_confined_workers_that_write_the_project_are_watched(
    lookout, folder, policy, is_watched
):
    assert is_watched == bool(lookout.projects(launch(*policy)))


async def test_other_folders_that_may_be_written_are_watched_too(lookout, folder, tmp_path, told):
    (tmp_path / "shared").mkdir()
    policy = {"writable": (str(tmp_path / "shared"), str(tmp_path / "missing"))}
    strict = lookout.watcher("strict")
    await strict.begins(launch("strict", **policy))
    (tmp_path / "shared/.envrc").touch()
    (folder / ".envrc").touch()

    strict.rests()

    _, text = await come(told)
    assert f"in {tmp_path}/shared something came" in text
    await lookout.look_now()
    assert told.empty()


async def test_what_is_known_beforehand_is_not_read_again(lookout, folder, monkeypatch):
    (folder / "a").mkdir()
    read = []
    real = Watch.accept
    monkeypatch.setattr(
        Watch, "accept", lambda watch: read.append(len(watch._folders)) or real(watch)
    )

    await lookout.know(launch())
    await lookout.watcher("coder").begins(launch())

    assert [0, 2] == read


async def test_a_watch_that_fails_keeps_no_worker_from_its_work(lookout, folder, monkeypatch, told):
    def fail(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Watch, "accept", fail)
    monkeypatch.setattr(Watch, "look", fail)
    coder = lookout.watcher("coder")

    ended = await coder.begins(launch())
    ended()
    await lookout.look_now()

    assert told.empty()
    assert [
        f"not all of {folder} is watched for what workers leave: can't start new thread"
    ] == lookout.notes


async def test_a_start_that_is_given_up_writes_nothing(lookout, folder, monkeypatch, told):
    """Its look goes on, and the next one waits for that."""
    go_on = threading.Event()
    real = Watch.accept
    monkeypatch.setattr(Watch, "accept", lambda watch: go_on.wait(30) and real(watch))
    beginning = asyncio.create_task(lookout.watcher("coder").begins(launch()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.wait({beginning})
    (project,) = lookout.projects(launch())
    knowing = asyncio.create_task(project.know())
    go_on.set()
    await knowing

    assert not project._living
    (folder / ".git").mkdir()
    await lookout.know(launch())
    await lookout.look_now()
    assert told.empty()
    assert (folder / ".git").is_dir()


async def test_a_disk_that_does_not_answer_keeps_no_worker_from_its_work(
    lookout, folder, monkeypatch
):
    go_on = threading.Event()
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    monkeypatch.setattr(Watch, "accept", lambda _: go_on.wait(30))

    ended = await asyncio.wait_for(lookout.watcher("coder").begins(launch()), 20)

    (note,) = lookout.notes
    assert "to read it takes longer than 50 ms" in note
    monkeypatch.setattr(module, "_PATIENCE", 30)
    go_on.set()
    ended()
    await lookout.know(launch())
    assert [] == lookout.notes


async def test_where_nobody_knows_what_was_there_all_is_the_users(
    lookout, folder, told, looks, monkeypatch
):
    def fail(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "accept", fail)
        ended = await lookout.watcher("coder").begins(launch())
    (folder / "own/.git").mkdir(parents=True)
    await lookout.look_now()

    assert [] == looks
    assert (folder / "own/.git").is_dir()
    assert "can't start new thread" in lookout.notes[0]
    ended()
    await lookout.look_now()
    await lookout.know(launch())
    assert [] == lookout.notes
    assert told.empty()


async def test_the_root_folder_is_no_project(lookout, folder, monkeypatch):
    monkeypatch.chdir("/")

    assert [] == lookout.projects(launch())
