"""Other processes: signals, /proc, tracing, and what can be set for them."""

import ctypes
import fcntl
import os
import resource
import signal

from tests.security.abuse import (
    ALL_CHILDREN,
    TRACE_ATTACH,
    TRACE_DETACH,
    Refused,
    call,
    copy_memory,
    facts,
    read,
    seize,
    trace,
    write,
)
from tests.security.probe import NOWHERE, WITHOUT_NAMESPACES, harm, topic

signals = topic("Signals")

_CLOSED = "Hive keeps what starts and watches workers closed to them in every profile"
_SEEN = "without namespaces Linux shows every process's command line and state to everybody"
# Seconds until a signal has had its effect.
_SIGNAL = 0.5
_YAMA = "it lets a process trace its children only (Yama)"


@signals("signals the host")
def signal_host():
    os.kill(facts.host, signal.SIGURG)


@harm(signal_host, patience=_SIGNAL)
def _(world):
    return world.urgent


@signals("signals the zygote")
def signal_zygote():
    os.kill(facts.zygote, 0)


@signals("signals its supervisor")
def signal_supervisor():
    os.kill(os.getppid(), 0)


@signals("signals another worker")
def signal_sibling():
    os.kill(facts.sibling, 0)


@signals("kills another program of the user")
def kill_victim():
    os.kill(facts.victim, signal.SIGKILL)


@harm(kill_victim, patience=_SIGNAL)
def _(world):
    return world.victim_state() in {"", "Z"}


@signals("stops another program of the user")
def stop_victim():
    os.kill(facts.victim, signal.SIGSTOP)


@harm(stop_victim, patience=_SIGNAL)
def _(world):
    stopped = world.victim_state() == "T"
    if stopped:
        world.victim.send_signal(signal.SIGCONT)
    return stopped


@signals("signals one thread of another program")
def signal_thread():
    call("tgkill", facts.victim, facts.victim, signal.SIGURG)


@harm(signal_thread, patience=_SIGNAL)
def _(world):
    return world.victim_heard()


@signals("queues a signal with a value for another program")
def queue_signal():
    # Linux lets nobody forge a signal of kill, but one that is queued
    information = (ctypes.c_int * 32)(signal.SIGURG, 0, -1)
    call("rt_sigqueueinfo", facts.victim, signal.SIGURG, information)


@harm(queue_signal, patience=_SIGNAL)
def _(world):
    return world.victim_heard()


@signals("signals another program through a pidfd")
def pidfd_signal():
    handle = os.pidfd_open(facts.victim)
    try:
        signal.pidfd_send_signal(handle, signal.SIGURG)
    finally:
        os.close(handle)


@harm(pidfd_signal, patience=_SIGNAL)
def _(world):
    return world.victim_heard()


@signals("signals the host's process group")
def signal_group():
    os.killpg(facts.host_group, signal.SIGURG)


@harm(signal_group, patience=_SIGNAL)
def _(world):
    return world.urgent


@signals("signals all that the user runs (`kill(-1)`)")
def signal_all():
    os.kill(-1, signal.SIGURG)


@harm(signal_all, patience=_SIGNAL)
def _(world):
    return world.urgent or world.victim_heard()


@signals("has a pipe of its own signal another program (F_SETOWN)")
def signal_by_pipe():
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, facts.victim)
        fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(writer, b"x")
    finally:
        os.close(reader)
        os.close(writer)


@harm(signal_by_pipe, patience=_SIGNAL)
def _(world):
    return world.victim_heard()


proc = topic("What /proc tells")


@proc("reads the host's environment, with its tokens")
def host_environment():
    return read(f"/proc/{facts.host}/environ")


@proc("opens the host's memory")
def host_memory():
    os.close(os.open(f"/proc/{facts.host}/mem", os.O_RDWR))


@proc("reads where the host's memory is")
def host_maps():
    if not read(f"/proc/{facts.host}/maps"):
        raise Refused("nothing is shown")


@proc("lists the host's open files")
def host_descriptors():
    return os.readlink(f"/proc/{facts.host}/fd/{facts.handle}")


@proc("reads a file that the host has open")
def host_file():
    return read(f"/proc/{facts.host}/fd/{facts.handle}")


@proc("reads files by way of the host's root")
def host_root():
    return read(f"/proc/{facts.host}/root{facts.home}/.netrc")


@proc("reads files by way of the host's working folder")
def host_folder():
    return read(f"/proc/{facts.host}/cwd/../.netrc")


@proc("writes into what the host says of itself")
def host_name():
    write(f"/proc/{facts.host}/coredump_filter", "0x33")


@proc("has the system kill another program first when memory runs out")
def victim_oom():
    write(f"/proc/{facts.victim}/oom_score_adj", "500")


@proc("reads the environment of another worker")
def sibling_environment():
    return read(f"/proc/{facts.sibling}/environ")


@proc("reads the environment of another program")
def victim_environment():
    return read(f"/proc/{facts.victim}/environ")


@proc(
    "reads the command line of another program, with its token",
    possible=WITHOUT_NAMESPACES,
    why=_SEEN,
)
def victim_command():
    if b"SECRET" not in read(f"/proc/{facts.victim}/cmdline"):
        raise Refused("it is not the other program")


@proc("lists the user's programs", possible=WITHOUT_NAMESPACES, why=_SEEN)
def list_programs():
    if str(facts.victim) not in os.listdir("/proc"):
        raise Refused("the other program is not there")


@proc("opens the zygote's memory", possible=NOWHERE, why=_CLOSED)
def zygote_memory():
    os.close(os.open(f"/proc/{facts.zygote}/mem", os.O_RDONLY))


@proc("reads the zygote's environment", possible=NOWHERE, why=_CLOSED)
def zygote_environment():
    return read(f"/proc/{facts.zygote}/environ")


@proc("opens its supervisor's memory", possible=NOWHERE, why=_CLOSED)
def supervisor_memory():
    os.close(os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR))


@proc("reads the kernel's log", optional="it shows nobody the kernel's log")
def kernel_log():
    call("syslog", 3, ctypes.create_string_buffer(100), 100)


@proc("changes a setting of the kernel", possible=NOWHERE, why="it is not the user's")
def kernel_setting():
    write("/proc/sys/kernel/hostname", "planted")


tracing = topic("Tracing")


@tracing("attaches to another program (ptrace)", optional=_YAMA)
def attach():
    trace(TRACE_ATTACH, facts.victim)
    os.waitpid(facts.victim, ALL_CHILDREN)
    trace(TRACE_DETACH, facts.victim)


@tracing("seizes another program (ptrace)", optional=_YAMA)
def seize_victim():
    seize(facts.victim)


@tracing("attaches to another worker (ptrace)", optional=_YAMA)
def attach_sibling():
    seize(facts.sibling)


@tracing("attaches to the zygote (ptrace)", possible=NOWHERE, why=_CLOSED)
def attach_zygote():
    seize(facts.zygote)


@tracing("attaches to its supervisor (ptrace)", possible=NOWHERE, why=_CLOSED)
def attach_supervisor():
    seize(os.getppid())


@tracing("reads another program's memory (process_vm_readv)", optional=_YAMA)
def read_memory():
    buffer = ctypes.create_string_buffer(6)
    copy_memory("process_vm_readv", facts.victim, facts.victim_address, buffer)
    if buffer.raw != b"SECRET":
        raise Refused("it read something else")


@tracing("writes another program's memory (process_vm_writev)", optional=_YAMA)
def write_memory():
    buffer = ctypes.create_string_buffer(b"SECRET", 6)
    copy_memory("process_vm_writev", facts.victim, facts.victim_address, buffer)


@tracing("takes a file that another program has open (pidfd_getfd)", optional=_YAMA)
def take_descriptor():
    handle = os.pidfd_open(facts.victim)
    taken = call("pidfd_getfd", handle, facts.victim_handle, 0)
    os.close(handle)
    return os.pread(taken, 10, 0)


@tracing("compares its files with another program's (kcmp)", optional="it has no kcmp, or has Yama")
def compare():
    call("kcmp", os.getpid(), facts.victim, 0, 1, 1)


@tracing(
    "asks where another program's memory lies (move_pages)", optional="it has no NUMA, or Yama"
)
def move_pages():
    status = ctypes.c_int()
    page = ctypes.c_void_p(facts.victim_address & ~4095)
    call("move_pages", facts.victim, 1, ctypes.byref(page), None, ctypes.byref(status), 0)


setting = topic("What can be set for other programs")


@setting("makes another program slower (setpriority)")
def renice():
    os.setpriority(os.PRIO_PROCESS, facts.victim, facts.nice + 1)


@harm(renice)
def _(world):
    return os.getpriority(os.PRIO_PROCESS, world.facts["victim"]) > world.facts["nice"]


@setting("makes a process group slower (setpriority)")
def renice_group():
    os.setpriority(os.PRIO_PGRP, facts.victim, facts.nice + 1)


@harm(renice_group)
def _(world):
    return os.getpriority(os.PRIO_PROCESS, world.facts["victim"]) > world.facts["nice"]


@setting("makes all that the user runs slower (setpriority)", fresh=True)
def renice_user():
    os.setpriority(os.PRIO_USER, 0, facts.nice + 1)


@harm(renice_user)
def _(world):
    return os.getpriority(os.PRIO_PROCESS, world.facts["victim"]) > world.facts["nice"]


@setting("limits another program (prlimit)")
def limit():
    most = resource.prlimit(facts.victim, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(facts.victim, resource.RLIMIT_NOFILE, (77, most))


@harm(limit)
def _(world):
    return resource.prlimit(world.facts["victim"], resource.RLIMIT_NOFILE)[0] == 77


@setting("limits its supervisor (prlimit)")
def limit_supervisor():
    before = resource.prlimit(os.getppid(), resource.RLIMIT_CORE)
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE, before)


@setting("keeps another program to one processor (sched_setaffinity)")
def affinity():
    os.sched_setaffinity(facts.victim, {min(os.sched_getaffinity(0))})


@harm(affinity)
def _(world):
    return len(os.sched_getaffinity(world.facts["victim"])) == 1 != os.cpu_count()


@setting("gives another program what processor time is left over (sched_setscheduler)")
def scheduler():
    os.sched_setscheduler(facts.victim, os.SCHED_IDLE, os.sched_param(0))


@harm(scheduler)
def _(world):
    return os.sched_getscheduler(world.facts["victim"]) == os.SCHED_IDLE


@setting("does the same by sched_setattr")
def scheduler_attributes():
    # the size, SCHED_BATCH, no flags, the same niceness
    attributes = (ctypes.c_uint32 * 12)(48, 3, 0, 0, facts.nice)
    call("sched_setattr", facts.victim, attributes, 0)


@harm(scheduler_attributes)
def _(world):
    return os.sched_getscheduler(world.facts["victim"]) == os.SCHED_BATCH


@setting("makes another program's disk slow (ioprio_set)")
def disk_priority():
    call("ioprio_set", 1, facts.victim, 3 << 13)
