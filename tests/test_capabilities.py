"""Root without root's power."""

import ctypes
import os
import struct
import subprocess

import pytest

from hive_jupyter.worker.confine import capabilities, namespaces, prctl, system_calls
from tests.children import NOBODY, Place, in_child, outcome, users

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
SETPCAP = 8

root = pytest.mark.skipif(os.getuid() != 0, reason="only root has capabilities to lose")


def held(status=None):
    """The five sets of this process, or of what another said of itself."""
    if status is None:
        with open("/proc/self/status") as file:
            status = file.read()
    words = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    return {name: int(words[name], 16) for name in SETS}


def of_a_program():
    """What a program has that is started now."""
    words = ["cat", "/proc/self/status"]
    return held(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def hold(low, inheritable=0):
    """Set the lower halves of three sets: permitted and effective, inheritable."""
    header = struct.pack("<Ii", 0x20080522, 0)
    system_calls.call("capset", header, struct.pack("<6I", low, low, inheritable, 0, 0, 0))


@root
def test_root_has_none_left_nor_have_its_programs():
    def drop():
        prctl.no_new_privs()
        capabilities.drop()
        return held(), of_a_program()

    none = dict.fromkeys(SETS, 0)

    assert in_child(of_a_program)["CapEff"] != 0
    assert (none, none) == in_child(drop)


@root
def test_root_is_then_a_user_like_others():
    place = Place(NOBODY)
    file = place.file("file")
    os.chmod(file, 0o600)

    def read():
        with open(file) as opened:
            return opened.read()

    def attempts():
        return outcome(read), outcome(os.chown, file, 0, 0), outcome(os.setuid, NOBODY)

    def drop():
        capabilities.drop()
        return attempts()

    assert ("EACCES", "EACCES", "EPERM") == in_child(drop)
    assert ("", "", "") == in_child(attempts)
    place.remove()


@root
def test_where_the_bounding_set_stays_programs_gain_nothing_all_the_same():
    def drop():
        hold(held()["CapPrm"] & 0xFFFFFFFF & ~(1 << SETPCAP))  # as a container may be started
        prctl.no_new_privs()
        capabilities.drop()
        return held(), of_a_program()

    own, program = in_child(drop)

    for found in (own, program):
        assert 0 != found.pop("CapBnd")
        assert {0} == set(found.values())


@root
def test_what_programs_were_to_keep_is_given_up():
    def keep():
        low = held()["CapPrm"] & 0xFFFFFFFF
        hold(low, inheritable=low)
        system_calls.call("prctl", 47, 2, 0, 0, 0)  # PR_CAP_AMBIENT_RAISE, CAP_CHOWN
        before = held()
        capabilities.drop()
        return before, held()

    before, after = in_child(keep)

    assert 1 == before["CapAmb"]
    assert 0 != before["CapInh"]
    assert dict.fromkeys(SETS, 0) == after


def test_it_is_harmless_for_who_has_none():
    def drop():
        before = held()
        capabilities.drop()
        return before, held()

    before, after = in_child(drop, user=users()[-1])

    assert before == after
    assert 0 == after["CapEff"]


@pytest.mark.skipif(not namespaces.work(), reason="there are no user namespaces here")
def test_a_namespace_s_capabilities_are_given_up():
    def drop():
        before = held()["CapEff"]
        capabilities.drop()
        return before, held()

    before, after = in_child(lambda: in_child(drop, fork=namespaces.clone), user=users()[-1])

    assert 0 != before
    assert dict.fromkeys(SETS, 0) == after


def test_the_end_of_the_parent_stays_the_end_of_the_worker():
    """The kernel forgets PR_SET_PDEATHSIG where a process gains something."""

    def drop():
        prctl.die_with(os.getppid())
        prctl.no_new_privs()
        capabilities.drop()
        signal = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(signal), 0, 0, 0)
        return signal.value

    assert 9 == in_child(drop)
