"""Processes, mounts, shared memory and network of a worker's own, as root and as anybody."""

import errno
import os
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from hive_jupyter.worker.confine import capabilities, namespaces, prctl, seccomp, system_calls
from tests.children import Place, in_child, outcome, users

here = pytest.mark.skipif(not namespaces.work(), reason="there are no user namespaces here")

call = system_calls.call
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
BIND, REMOUNT, SHARED = 4096, 32, 1 << 20


@pytest.fixture(params=users(), ids=str)
def user(request):
    return request.param


@pytest.fixture
def place(user):
    place = Place(user)
    yield place
    place.remove()


@pytest.fixture
def inside(user):
    """What comes of something in namespaces of its own, among these mounts."""

    def inside(body, mounts=None):
        def arranged():
            if mounts is not None:
                namespaces.arrange(mounts)
            return body()

        return in_child(lambda: in_child(arranged, fork=namespaces.clone), user=user)

    return inside


def mounts(place, *, read_only=(), writable=(), keep=(), shm_size=2**20):
    """A runtime folder with a private temporary folder in it, both kept, and what a test adds."""
    temporary = place.folder("run/tmp")
    keep = (os.path.dirname(temporary), *keep)
    writable = (os.path.dirname(temporary), *writable)
    return namespaces.Mounts(writable, tuple(read_only), temporary, keep, shm_size)


def write(path):
    with open(path, "w") as file:
        file.write("written")


def connect(address, family=socket.AF_INET):
    with socket.socket(family) as there:
        there.connect(address)


def mount(source, target, kind=None, flags=0, options=None):
    words = [word if word is None else os.fsencode(word) for word in (source, target, kind)]
    call("mount", *words, flags, None if options is None else options.encode())


# clone


@here
def test_a_child_is_the_first_process_of_its_own_and_stays_who_it_was(inside, user):
    def look():
        status = Path("/proc/self/status").read_text()
        everything = (1 << 40) - 1
        capable = int(status.split("CapEff:")[1].split()[0], 16) & everything == everything
        return os.getpid(), os.getppid(), os.getuid(), os.getgid(), capable

    mine = (os.getuid(), os.getgid()) if user is None else (user, user)

    assert (1, 0, *mine, True) == inside(look)


@here
def test_it_can_fork_again_and_reap_what_others_leave(inside):
    def fork():
        child = os.fork()
        if child == 0:
            os._exit(os.getppid() + os.getpid())
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert 1 + 2 == inside(fork)


@here
def test_hooks_of_a_fork_run(user):
    found = []
    os.register_at_fork(
        before=lambda: found.append("before"),
        after_in_parent=lambda: found.append("parent"),
        after_in_child=lambda: found.append("child"),
    )

    def fork():
        found.clear()
        inner = in_child(lambda: list(found), fork=namespaces.clone)
        return inner, list(found)

    assert (["before", "child"], ["before", "parent"]) == in_child(fork, user=user)


@here
def test_processes_outside_are_not_seen(inside):
    def look():
        return [name for name in os.listdir("/proc") if name.isdigit()]

    assert ["1"] == inside(look)


@here
def test_a_process_that_may_not_be_traced_has_such_children(user):
    def clone():
        prctl.set_dumpable(False)
        return in_child(prctl.is_dumpable, fork=namespaces.clone), prctl.is_dumpable()

    assert (False, False) == in_child(clone, user=user)


@here
def test_all_that_it_started_ends_with_it(user):
    def start_daemon(writing):
        ready_reading, ready_writing = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(ready_writing, b"x")
                signal.pause()
            os._exit(0)
        os.read(ready_reading, 1)

    def start():
        reading, writing = os.pipe()
        in_child(start_daemon, writing, fork=namespaces.clone)
        os.close(writing)
        return os.read(reading, 1)

    assert b"" == in_child(start, user=user)


@here
def test_groups_can_not_be_left(inside):
    def leave():
        return outcome(os.setgroups, [])

    assert "EPERM" == inside(leave)


@here
def test_what_it_mounts_nobody_else_sees_but_what_is_unmounted_outside_is_let_go(place, inside):
    """A stick that is pulled out is not kept busy by a worker."""
    folder, below = place.folder("folder"), "below"

    def nested():
        mount("none", folder, "tmpfs")
        mount(None, folder, None, SHARED)
        os.mkdir(f"{folder}/{below}")
        mount("none", f"{folder}/{below}", "tmpfs")
        write(f"{folder}/{below}/file")
        go_reading, go_writing = os.pipe()
        ready_reading, ready_writing = os.pipe()
        child = namespaces.clone()
        if child == 0:
            seen = os.listdir(f"{folder}/{below}")
            os.mkdir(f"{folder}/own")
            mount("none", f"{folder}/own", "tmpfs")
            write(f"{folder}/own/file")
            os.write(ready_writing, b"x")
            os.read(go_reading, 1)
            left = os.listdir(f"{folder}/{below}")
            os._exit(0 if (seen, left) == (["file"], []) else 1)
        os.read(ready_reading, 1)
        own = os.listdir(f"{folder}/own")
        call("umount2", os.fsencode(f"{folder}/{below}"), 0)
        os.write(go_writing, b"x")
        return own, os.waitpid(child, 0)[1]

    assert ([], 0) == inside(nested)


@here
def test_a_child_that_can_not_be_set_up_says_why_and_ends(capfd, user):
    def clone():
        refuse("mount")
        pid = namespaces.clone()
        if pid == 0:
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert 1 == in_child(clone, user=user)
    assert (
        "PermissionError: [Errno 1] mount: Operation not permitted: '/proc'"
        in capfd.readouterr().err
    )


def refuse(name):
    """As a container or a security module does."""
    prctl.no_new_privs()
    rules = {name: [seccomp.Rule(0x00050000 | errno.EPERM)]}
    seccomp._install(seccomp.assemble(system_calls.MACHINE, rules), flags=0)


@here
@pytest.mark.parametrize("name", ["clone", "mount", "mount_setattr"])
def test_where_something_is_refused_they_do_not_work(name, user, capfd):
    def try_them():
        before = namespaces.work()
        pid = os.getpid()
        refuse(name)
        return before, namespaces.work(), pid == os.getpid()

    assert (True, False, True) == in_child(try_them, user=user)
    assert "" == capfd.readouterr().err


@here
def test_where_there_may_be_none_it_is_an_error(user):
    def clone():
        refuse("clone")
        return outcome(namespaces.clone)

    assert "EPERM" == in_child(clone, user=user)


def test_on_an_unknown_machine_there_are_none(monkeypatch):
    monkeypatch.setattr(system_calls, "MACHINE", None)

    assert not namespaces.work()
    assert "ENOSYS" == outcome(namespaces.clone)


# arrange


@here
def test_what_is_read_only_can_not_be_changed(place, inside):
    project, git = place.folder("project"), place.folder("project/.git")
    head = place.file("project/.git/HEAD")

    def change():
        return {
            "write": outcome(write, head),
            "create": outcome(write, f"{git}/new"),
            "mode": outcome(os.chmod, head, 0o777),
            "remove": outcome(os.unlink, head),
            "replace": outcome(os.rename, git, f"{project}/old"),
            "remove the folder": outcome(os.rmdir, git),
            "beside": outcome(write, f"{project}/new"),
        }

    found = inside(change, mounts(place, writable=[project], read_only=[git], keep=[project]))

    assert {
        "write": "EROFS",
        "create": "EROFS",
        "mode": "EROFS",
        "remove": "EROFS",
        "replace": "EBUSY",
        "remove the folder": "EBUSY",
        "beside": "",
    } == found


@here
def test_all_that_is_not_writable_is_read_only(place, inside):
    """Also what the file system's rights are no matter of: modes, times, attributes."""
    file = place.file("file")

    def change():
        return {
            "write": outcome(write, file),
            "mode": outcome(os.chmod, file, 0o600),
            "time": outcome(os.utime, file),
            "attribute": outcome(os.setxattr, file, "user.x", b"y"),
            "beside": outcome(write, f"{file}.new"),
        }

    assert {"EROFS"} == set(inside(change, mounts(place, keep=[place.path])).values())


@here
def test_the_way_to_what_is_read_only_stays(place, inside):
    """Else the folder around it could be moved away, and another put in its place."""
    project = place.folder("project")
    place.folder("project/deep")
    deep, git = place.folder("project/deep/sub"), place.folder("project/deep/sub/.git")

    def change():
        return [
            outcome(os.rename, deep, f"{project}/deep/away"),
            outcome(os.rename, os.path.dirname(deep), f"{project}/away"),
            outcome(write, f"{deep}/new"),
            outcome(write, f"{git}/new"),
        ]

    arrangement = mounts(place, writable=[project], read_only=[git], keep=[project])

    assert ["EBUSY", "EBUSY", "", "EROFS"] == inside(change, arrangement)


@here
def test_a_folder_in_what_is_read_only_may_be_written_nevertheless(place, inside):
    project, out = place.folder("project"), place.folder("project/out")
    chosen = mounts(place, read_only=[project], writable=[out], keep=[project, out])

    found = inside(lambda: (outcome(write, f"{project}/new"), outcome(write, f"{out}/new")), chosen)

    assert ("EROFS", "") == found


@here
def test_it_is_read_only_with_all_that_is_mounted_below(place, inside):
    folder = place.folder("folder/below")
    top = os.path.dirname(folder)

    def change():
        mount("none", folder, "tmpfs")
        namespaces.arrange(mounts(place, read_only=[top], keep=[place.path]))
        return outcome(write, f"{folder}/file")

    place.folder("run/tmp")
    assert "EROFS" == inside(change)


@here
@pytest.mark.parametrize("flags", [2, 4, 8, 2 | 4 | 8])
def test_a_mount_that_lacks_rights_can_be_made_read_only(flags, place, inside):
    """Flags of mounts from outside are locked: a remount that does not name them fails."""
    folder = place.folder("folder")
    arrangement = mounts(place, read_only=[folder], keep=[place.path])

    def change():
        namespaces.arrange(arrangement)
        return outcome(write, f"{folder}/file"), os.statvfs(folder).f_flag & flags

    def outer():
        mount("none", folder, "tmpfs", flags)
        return in_child(change, fork=namespaces.clone)

    assert ("EROFS", flags) == inside(outer)


@here
def test_a_file_can_be_read_only(place, inside):
    file = place.file("file")

    def change():
        return outcome(write, file), outcome(os.unlink, file)

    arrangement = mounts(place, writable=[place.path], read_only=[file], keep=[place.path])

    assert ("EROFS", "EBUSY") == inside(change, arrangement)


@here
def test_what_is_to_be_protected_and_is_not_there_is_an_error(place, inside):
    missing = f"{place.path}/missing"
    arrangement = mounts(place, read_only=[missing])

    assert "ENOENT" == inside(lambda: outcome(namespaces.arrange, arrangement))


@here
def test_shared_memory_is_one_s_own_and_of_a_size(place, inside):
    def look():
        fits, exceeds = "/dev/shm/fits", "/dev/shm/exceeds"
        found = os.listdir("/dev/shm")
        with open(fits, "wb") as file:
            file.write(bytes(2**19))
        with open(exceeds, "wb", buffering=0) as file:
            return found, [file.write(bytes(2**18)) for _ in range(2)], outcome(file.write, b"x")

    with tempfile.NamedTemporaryFile(dir="/dev/shm"):
        assert ([], [2**18] * 2, "ENOSPC") == inside(look, mounts(place))
    assert not os.path.exists("/dev/shm/fits")


@here
@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp"])
def test_temporary_files_are_one_s_own(folder, place, inside):
    arrangement = mounts(place)
    name = f"hive-test-{os.getpid()}"

    def look():
        write(f"{folder}/{name}")
        return os.listdir(folder)

    with tempfile.NamedTemporaryFile(dir=folder) as file:
        seen = inside(look, arrangement)

    assert os.path.basename(file.name) not in seen
    assert name in seen
    assert not os.path.exists(f"{folder}/{name}")
    assert os.path.exists(f"{arrangement.temporary}/{name}")


@here
def test_what_is_kept_stays_in_its_place(user, inside):
    place = Place(user, "/tmp")
    project, file = place.folder("a/project"), place.file("file")
    git, head = place.folder("a/project/.git"), place.file("a/project/.git/HEAD")
    hidden = place.file("a/hidden")
    keep = [f"{project}/.git", project, file]
    arrangement = mounts(place, writable=[project, file], read_only=[git], keep=keep)

    def look():
        write(f"{project}/new")
        write(file)
        own = os.listdir(os.path.dirname(arrangement.temporary))
        return own, outcome(write, head), os.path.exists(hidden), os.listdir(place.path)

    own, change, sees_hidden, around = inside(look, arrangement)

    assert (["tmp"], "EROFS", False) == (own, change, sees_hidden)
    assert ["a", "file", "run"] == sorted(around)
    assert "written" == Path(project, "new").read_text() == Path(file).read_text()
    place.remove()


@here
def test_where_all_of_the_folder_is_kept_it_is_not_hidden(user, inside):
    """A project may be /tmp itself."""
    place = Place(user, "/tmp")
    file = place.file("file")

    assert os.path.exists(file)
    assert inside(lambda: os.path.exists(file), mounts(place, keep=["/tmp"]))
    place.remove()


@here
def test_what_was_to_be_kept_and_is_gone_is_passed_over(place, inside):
    missing = f"{place.path}/missing"

    assert not inside(lambda: os.path.exists(missing), mounts(place, keep=[missing]))


@here
def test_a_kept_name_may_hold_any_bytes(user, inside):
    place = Place(user, "/tmp")
    folder = place.folder(os.fsdecode(b"\xff a\\b"))
    file = place.file(os.fsdecode(b"\xff a\\b/file"))

    def change():
        return outcome(write, file)

    assert "EROFS" == inside(change, mounts(place, read_only=[folder], keep=[folder]))
    place.remove()


@here
def test_no_descriptor_is_left_open_and_no_way_into_what_is_hidden(place, inside):
    def look():
        before = os.listdir("/proc/self/fd")
        os.chdir("/tmp")
        namespaces.arrange(mounts(place))
        return before == os.listdir("/proc/self/fd"), os.getcwd()

    assert (True, "/") == inside(look)


@here
def test_without_capabilities_nothing_of_it_can_be_undone(place, inside):
    """Nor in further namespaces, which seccomp refuses as well."""
    project, git = place.folder("project"), place.folder("project/.git")
    head = place.file("project/.git/HEAD")

    def undo():
        attempts = {
            "unmount": ("umount2", git.encode(), 0),
            "unmount what hides": ("umount2", b"/tmp", 0),
            "remount": ("mount", None, git.encode(), None, REMOUNT | BIND, None),
            "bind": ("mount", project.encode(), b"/mnt", None, BIND, None),
        }
        capabilities.drop()
        before = {name: outcome(call, *attempt) for name, attempt in attempts.items()}
        call("unshare", NEW_USER | NEW_MOUNTS)
        after = {name: outcome(call, *attempt) for name, attempt in attempts.items()}
        return before, after, outcome(write, head)

    before, after, change = inside(undo, mounts(place, read_only=[git], keep=[project]))

    assert {"EPERM"} == set(before.values())
    assert {"EINVAL", "EPERM", "EACCES"} >= {after[name] for name in after if name != "bind"}
    assert "EROFS" == change


# leave_network


@here
def test_a_network_of_one_s_own_has_one_address(user, inside):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        def look():
            before = outcome(connect, address)
            namespaces.leave_network()
            with socket.create_server(("127.0.0.1", 0)) as own:
                itself = outcome(connect, own.getsockname())
            return before, outcome(connect, address), itself, outcome(connect, ("192.0.2.1", 443))

        assert ("", "ECONNREFUSED", "", "ENETUNREACH") == inside(look)


@here
def test_abstract_sockets_outside_are_out_of_reach(inside):
    name = f"\0hive-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()

        def look():
            before = outcome(connect, name, socket.AF_UNIX)
            namespaces.leave_network()
            return before, outcome(connect, name, socket.AF_UNIX)

        assert ("", "ECONNREFUSED") == inside(look)


@here
def test_the_network_is_not_left_without_capabilities(inside):
    def leave():
        capabilities.drop()
        return outcome(namespaces.leave_network)

    assert "EPERM" == inside(leave)
