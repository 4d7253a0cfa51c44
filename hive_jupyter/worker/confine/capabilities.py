"""
Capabilities: the pieces of root's power, given up by a worker that has any (``capabilities(7)``).

A worker has them where the user is root, as in many containers, and where it was started in a user
namespace of its own. Without them root is a user like others, who owns root's files: what belongs
to somebody else is changed, and may be read, no more than its mode says.
"""

from __future__ import annotations

import errno
import struct

from hive_jupyter.worker.confine import system_calls

_VERSION_3 = 0x20080522
_THIS_THREAD = 0
_CAPBSET_DROP = 24
_CAP_AMBIENT, _CLEAR_ALL = 47, 4


def drop() -> None:
    """
    Give up all capabilities in all five sets, for good; harmless for who has none.

    To be called before there are other threads, after all that needs them (``namespaces``).
    ``prctl.no_new_privs`` belongs to it: it keeps programs that root starts from getting them back
    where the bounding set cannot be emptied, for want of the one capability that this needs.
    """
    _empty_bounding_set()
    system_calls.call("prctl", _CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = struct.pack("<Ii", _VERSION_3, _THIS_THREAD)
    none = bytes(24)  # effective, permitted and inheritable, of 32 bits; twice
    system_calls.call("capset", header, none)


def _empty_bounding_set() -> None:
    """Drop one after the other, up to the first that this kernel does not know."""
    for capability in range(64):
        try:
            system_calls.call("prctl", _CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):
                return
            raise
