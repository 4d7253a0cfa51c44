"""Files, ports, signals: out of reach but for what is granted, whoever tries."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import termios

import pytest

from hive_jupyter.worker.confine import capabilities, landlock, prctl, system_calls
from tests.children import in_child, outcome, place_of, process_beside, users

pytestmark = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")

SYSTEM = ["/usr", "/lib", "/lib64", "/bin", "/etc"]


def since(abi):
    return pytest.mark.skipif(landlock.abi() < abi, reason=f"this kernel has no ABI {abi}")


@pytest.fixture(params=users(), ids=str)
def user(request):
    return request.param


@pytest.fixture
def place(user):
    with place_of(user) as place:
        yield place


@pytest.fixture
def tried(user):
    """What comes of something in a child that has only what is granted here."""

    def tried(body, *, read=(), write=(), connect=None):
        def confined():
            prctl.no_new_privs()
            landlock.restrict(read=read, write=write, connect=connect)
            return body()

        return in_child(confined, user=user)

    return tried


def read(path):
    with open(path) as file:
        return file.read()


def write(path):
    with open(path, "r+") as file:
        file.write("written")


def listen(port=0, family=socket.AF_INET, host="127.0.0.1"):
    """A socket to connect to, which needs nobody to accept."""
    listener = socket.socket(family)
    listener.bind((host, port) if family == socket.AF_INET else host)
    listener.listen()
    return listener


def connect(address, family=socket.AF_INET):
    with socket.socket(family) as there:
        there.connect(address)


def test_what_is_not_granted_can_not_be_read(place, user, tried):
    inside, outside = place.file("in"), place.file("out")

    assert "text" == in_child(read, outside, user=user)
    assert ("", "EACCES") == tried(
        lambda: (outcome(read, inside), outcome(read, outside)), read=[inside]
    )


def test_a_folder_is_granted_with_all_below(place, tried):
    folder = place.folder("folder/deep")
    file = place.file("folder/deep/file")
    top = os.path.dirname(folder)

    def look():
        return os.listdir(folder), read(file), outcome(os.listdir, place.path)

    assert (["file"], "text", "EACCES") == tried(look, read=[top])


CHANGES = {
    "write": lambda folder: write(f"{folder}/file"),
    "create": lambda folder: open(f"{folder}/new", "w").close(),
    "truncate": lambda folder: os.close(os.open(f"{folder}/file", os.O_RDWR | os.O_TRUNC)),
    "make a folder": lambda folder: os.mkdir(f"{folder}/new"),
    "make a link": lambda folder: os.symlink("file", f"{folder}/new"),
    "make a pipe": lambda folder: os.mkfifo(f"{folder}/new"),
    "make a socket": lambda folder: listen(0, socket.AF_UNIX, f"{folder}/new").close(),
    "link": lambda folder: os.link(f"{folder}/file", f"{folder}/new"),
    "move": lambda folder: os.rename(f"{folder}/file", f"{folder}/empty/file"),
    "replace": lambda folder: os.replace(f"{folder}/file", f"{folder}/other"),
    "remove a folder": lambda folder: os.rmdir(f"{folder}/empty"),
    "remove": lambda folder: os.unlink(f"{folder}/file"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_reading_is_not_writing(change, place, user, tried):
    folder = place.folder("folder")
    place.file("folder/file")
    place.file("folder/other")
    place.folder("folder/empty")

    assert "EACCES" == tried(lambda: outcome(CHANGES[change], folder), read=[folder])
    assert "" == in_child(outcome, CHANGES[change], folder, user=user)


@since(2)
def test_below_a_folder_to_write_everything_can_be_done(place, tried):
    one, two = place.folder("one"), place.folder("two")

    def work():
        open(f"{one}/file", "w").close()
        write(f"{one}/file")
        os.truncate(f"{one}/file", 3)
        os.link(f"{one}/file", f"{two}/link")
        os.rename(f"{one}/file", f"{two}/file")
        os.symlink("file", f"{two}/symbolic")
        os.mkfifo(f"{two}/pipe")
        listen(0, socket.AF_UNIX, f"{two}/socket").close()
        os.mkdir(f"{two}/folder")
        os.rmdir(f"{two}/folder")
        text = read(f"{two}/symbolic")
        for name in os.listdir(two):
            os.unlink(f"{two}/{name}")
        return text

    assert "wri" == tried(work, write=[one, two])


def test_a_file_can_be_granted_alone(place, tried):
    file, beside = place.file("file"), place.file("beside")

    def work():
        write(file)
        return outcome(write, beside), outcome(os.unlink, file), outcome(os.listdir, place.path)

    assert ("EACCES",) * 3 == tried(work, write=[file])


def test_what_can_be_read_can_be_run(place, tried):
    inside, outside = place.file("in"), place.file("out")

    def run():
        shown = subprocess.run(
            ["cat", inside, outside], check=False, capture_output=True, text=True
        )
        return shown.stdout, "Permission denied" in shown.stderr

    assert ("text", True) == tried(run, read=[*SYSTEM, inside], write=["/dev/null"])


def test_what_is_not_granted_can_not_be_run(tried):
    def run():
        return outcome(os.execv, "/bin/true", ["true"])

    assert "EACCES" == tried(run)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make devices")
def test_no_device_is_made(tmp_path):
    path = f"{tmp_path}/device"

    def make():
        return outcome(os.mknod, path, 0o600 | 0o020000, os.makedev(1, 3))

    def confined():
        prctl.no_new_privs()
        landlock.restrict(read=(), write=[str(tmp_path)], connect=None)
        return make()

    assert "" == in_child(make)
    os.unlink(path)
    assert "EACCES" == in_child(confined)


def test_a_link_in_place_of_what_was_to_be_written_grants_nothing(place, tried):
    secret = place.folder("secret/folder")
    file = place.file("secret/folder/file")
    os.symlink(secret, f"{place.path}/last")
    os.symlink(os.path.dirname(secret), f"{place.path}/middle")

    def tried_by(path):
        return tried(lambda: outcome(write, file), write=[path])

    assert "EACCES" == tried_by(f"{place.path}/last")
    assert "EACCES" == tried_by(f"{place.path}/middle/folder")
    assert "" == tried_by(secret)


def test_a_link_to_what_is_to_be_read_is_followed(place, tried):
    file = place.file("file")
    os.symlink(file, f"{place.path}/link")

    assert "text" == tried(lambda: read(file), read=[f"{place.path}/link"])


def test_paths_that_are_not_there_are_passed_over(place, tried):
    file = place.file("file")
    os.symlink("loop", f"{place.path}/loop")
    missing = [f"{place.path}/missing", f"{file}/below", f"{place.path}/loop"]

    assert "text" == tried(lambda: read(file), read=[*missing, file], write=missing)


def test_a_path_may_hold_any_bytes(place, tried):
    file = place.file(os.fsdecode(b"\xff\xfe name"))

    assert "text" == tried(lambda: read(file), read=[file])


def test_a_path_that_can_not_be_looked_at_for_want_of_descriptors_is_an_error(place, user):
    def confined():
        prctl.no_new_privs()
        while True:
            try:
                os.dup(0)
            except OSError:
                break
        return outcome(lambda: landlock.restrict(read=[place.path], write=(), connect=None))

    assert "EMFILE" == in_child(confined, user=user)


def test_no_descriptor_is_left_open(place, user):
    def confined():
        prctl.no_new_privs()
        before = os.listdir("/proc/self/fd")
        landlock.restrict(
            read=["/proc", place.path], write=[place.path, "/dev/null"], connect=[443]
        )
        return before, os.listdir("/proc/self/fd")

    before, after = in_child(confined, user=user)

    assert before == after


def test_what_was_open_before_stays_open(place, user):
    file = place.file("file")

    def confined():
        prctl.no_new_privs()
        with open(file) as opened:
            landlock.restrict(read=(), write=(), connect=None)
            return opened.read()

    assert "text" == in_child(confined, user=user)


def test_it_can_not_be_taken_back(place, tried):
    file = place.file("file")

    def escape():
        landlock.restrict(read=["/"], write=["/"], connect=None)
        return outcome(read, file)

    assert "EACCES" == tried(escape)


def test_without_no_new_privs_only_an_administrator_may():
    def restrict():
        return outcome(lambda: landlock.restrict(read=(), write=(), connect=None))

    assert "EPERM" == in_child(restrict, user=users()[-1])


@since(5)
def test_ioctl_only_on_devices_that_are_named(tried):
    def ask(path):
        with open(path, "r+b", buffering=0) as device:
            return outcome(fcntl.ioctl, device, termios.TCGETS, bytes(64))

    # The device's own answer: it is no terminal.
    assert "ENOTTY" == tried(lambda: ask("/dev/null"), write=["/dev/null"])
    assert "EACCES" == tried(lambda: ask("/dev/null"), write=["/dev"])


@since(4)
def test_only_named_ports_can_be_connected_to(user, tried):
    with listen() as one, listen() as other:
        allowed, refused = one.getsockname(), other.getsockname()

        def work():
            listen().close()
            return outcome(connect, allowed), outcome(connect, refused)

        assert ("", "") == in_child(work, user=user)
        assert ("", "EACCES") == tried(work, connect=[allowed[1]])
        assert ("EACCES", "EACCES") == tried(work, connect=[])
        assert ("", "") == tried(work, connect=None)


@since(6)
def test_only_what_was_started_here_can_be_signalled(user, tried):
    def signal_both():
        child = os.fork()
        if child == 0:
            signal.pause()
        own = outcome(os.kill, child, signal.SIGKILL)
        os.waitpid(child, 0)
        return own, outcome(os.kill, above, 0), outcome(os.kill, os.getpid(), 0)

    with process_beside(user) as above:
        assert ("", "", "") == in_child(signal_both, user=user)
        assert ("", "EPERM", "") == tried(signal_both)


@since(6)
def test_a_supervisor_that_keeps_its_signals_below_leaves_moving_between_folders_alone(place):
    """Every ruleset refuses that but where it grants it, also one that says nothing of files."""
    one, two, file = place.folder("one"), place.folder("two"), place.file("one/file")

    def supervise():
        prctl.no_new_privs()
        assert landlock.keep_signals_below()
        return in_child(work)

    def work():
        landlock.restrict(read=(), write=[one, two], connect=None)
        return outcome(os.rename, file, f"{two}/file"), outcome(os.link, f"{two}/file", file)

    assert ("", "") == in_child(supervise)


def test_what_others_have_in_memory_can_not_be_read(user, tried):
    """Their environment and descriptors neither; their names can."""

    def look(pid):
        capabilities.drop()  # one of root's (CAP_PERFMON) is enough for some of it
        return {
            "environment": outcome(read, f"/proc/{pid}/environ"),
            "memory": outcome(read, f"/proc/{pid}/maps"),
            "descriptors": outcome(os.readlink, f"/proc/{pid}/fd/0"),
            "folder": outcome(os.readlink, f"/proc/{pid}/cwd"),
            "name": outcome(read, f"/proc/{pid}/comm"),
        }

    def look_at_own():
        capabilities.drop()
        return in_child(look, os.getpid())

    with process_beside(user) as above:
        without = in_child(look, above, user=user)
        within = tried(lambda: look(above), read=["/proc"])
        own = tried(look_at_own, read=["/proc"])

    assert {""} == set(without.values())
    assert {**dict.fromkeys(without, "EACCES"), "name": ""} == within
    assert {""} == set(own.values())


@since(6)
def test_abstract_sockets_of_others_can_not_be_connected_to(user, tried):
    name = f"\0hive-test-{os.getpid()}-{user}"
    with listen(0, socket.AF_UNIX, name):

        def work():
            own = listen(0, socket.AF_UNIX, f"{name}-own")
            with own:
                return (
                    outcome(connect, f"{name}-own", socket.AF_UNIX),
                    outcome(connect, name, socket.AF_UNIX),
                )

        assert ("", "") == in_child(work, user=user)
        assert ("", "EPERM") == tried(work)


@pytest.mark.parametrize("abi", range(1, landlock.abi() + 1))
def test_as_much_as_each_abi_offers_is_asked_for(abi, place, user, monkeypatch):
    """A kernel still answers as an older one to who asks for no more than that had."""
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    inside, outside = place.folder("in"), place.file("out")
    below = place.folder("in/below")
    file = place.file("in/file")
    with listen() as listener:
        address = listener.getsockname()

        def confined():
            prctl.no_new_privs()
            landlock.restrict(read=["/dev/null"], write=[inside], connect=[1])
            with open("/dev/null") as device:
                return {
                    0: outcome(write, outside),
                    2: outcome(os.rename, file, f"{below}/file"),
                    3: outcome(os.truncate, outside, 4),
                    4: outcome(connect, address),
                    5: outcome(fcntl.ioctl, device, termios.TCGETS, bytes(64)),
                    6: outcome(os.kill, os.getppid(), 0) if user is None else "",
                }

        found = in_child(confined, user=user)

    assert {
        0: "EACCES",
        2: "" if abi >= 2 else "EXDEV",
        3: "EACCES" if abi >= 3 else "",
        4: "EACCES" if abi >= 4 else "",
        5: "EACCES" if abi >= 5 else "ENOTTY",
        6: "EPERM" if abi >= 6 and user is None else "",
    } == found


def test_a_kernel_without_landlock_has_abi_0(monkeypatch):
    def refuse(name, *arguments):
        raise OSError(errno.EOPNOTSUPP, name)

    monkeypatch.setattr(system_calls, "call", refuse)

    assert 0 == landlock.abi()
