"""
What confines workers here: tried out in a worker of each profile that serves nothing else.

::

    Targets ── attempts ──▶ a throwaway worker (worker.probes) ── how each ended ──▶ rows
       └────────────────── what is to be seen of them in the host ────────────────────┘
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import HiveError, SandboxUnavailable
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm import system
from hive_jupyter.swarm import targets as kept
from hive_jupyter.swarm.channels import Channels, Context
from hive_jupyter.swarm.descriptors import lack_of_descriptors
from hive_jupyter.swarm.forkserver import ForkServers
from hive_jupyter.swarm.launch import Launch, folders_of_jupyter, worker_environment
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.process import WorkerProcess, first_of
from hive_jupyter.swarm.report import ALLOWED, MISSING, PARTLY, YES, Row
from hive_jupyter.swarm.run import Run
from hive_jupyter.swarm.runtime import remove_apart, remove_tree
from hive_jupyter.swarm.targets import Attempt, Outcome, Targets
from hive_jupyter.units import format_duration

PROFILES = ("workspace", "strict")

# Limits of the throwaway workers: small, so that what exceeds them harms nobody.
PROCESSES = 64
MEMORY = 256 * 2**20

_NAME = "doctor"
# Seconds for all attempts of one worker, beside those for its start.
_PATIENCE = 10.0
# What two workers may need in the host; libzmq ends the process where it gets none for its own use.
_DESCRIPTORS = 64
# The first version of Landlock that holds back signals, and abstract unix sockets.
_SCOPES_SINCE = 6

# How an attempt ended with which its worker was.
_ENDED = "the worker was ended"

_SANDBOX_EXEC = (
    "sandbox-exec (degraded: Apple calls it deprecated, and no probe has shown here what it stops)"
)

_CODE = "from hive_jupyter.worker import probes; probes.tell({attempts!r})"


@dataclass(frozen=True)
class _Capability:
    """
    What a worker is kept from.

    Attributes:
        missing: what it means where it is not, or not quite.
        promised: the profiles that promise it.
        allowed: what it means where a profile does not promise it.
        beyond: what it means where it is kept from it although the profile does not promise that.
        by: what a refusal by this error comes from, where that differs from the usual.
    """

    missing: str
    promised: tuple[str, ...] = PROFILES
    allowed: str = ""
    beyond: str = ""
    by: Mapping[str, str] = field(default_factory=dict)


_STRICT_ALONE = ("strict",)
_CAPABILITIES = {
    kept.READING: _Capability("Code reads what you can read: keys, passwords, other projects."),
    kept.CHANGING: _Capability("Code can change and delete your files."),
    kept.PROJECT: _Capability("Code changes the project.", _STRICT_ALONE),
    kept.GIT: _Capability("Code can plant what your next git command runs."),
    kept.BESIDE_GIT: _Capability(
        "Code changes the project.",
        _STRICT_ALONE,
        beyond="Without namespaces nothing new can be made in a folder that holds a .git.",
    ),
    kept.PYTHON: _Capability("Code can plant what your next Python runs."),
    kept.TEMPORARY: _Capability("Code can ask for files in /tmp by name."),
    kept.SHARED: _Capability("Code reads and changes what your programs keep in /dev/shm."),
    kept.PORTS: _Capability("Code reaches other kernels, databases, a cloud's metadata."),
    kept.ALLOWED_PORTS: _Capability("Code reaches the network.", _STRICT_ALONE),
    kept.UDP: _Capability(
        "Code can send data away.",
        _STRICT_ALONE,
        allowed="Data can leave by UDP and DNS, to anywhere.",
    ),
    kept.SOCKETS: _Capability(
        "Code reaches what acts for you: ssh-agent, Docker, the desktop.", by={"EPERM": "sockets"}
    ),
    kept.SIGNALS: _Capability("Code can end your other programs.", by={"EPERM": "signals"}),
    kept.MEMORY: _Capability("Code reads passwords and keys out of your programs."),
    kept.PROCESSES: _Capability("Code reads command lines: keep secrets out of them."),
    kept.CALLS: _Capability("More of the kernel is open to attack than a worker needs."),
    kept.RIGHTS: _Capability("Code gets rights that it does not need.", by={"EPERM": "rights"}),
    kept.MORE_PROCESSES: _Capability(
        "Code can start processes until the machine has no room for more.",
        by={"EAGAIN": "the kernel's count", _ENDED: "Hive's count"},
    ),
    kept.MORE_MEMORY: _Capability("--memory does not hold.", by={"ENOMEM": "RLIMIT_DATA"}),
}


@dataclass(frozen=True)
class _Trial:
    """
    What came of one throwaway worker.

    Attributes:
        layers: what it said that was applied: see ``WorkerProcess.confinement``.
        outcomes: how each attempt ended.
    """

    layers: Mapping[str, Any]
    outcomes: Sequence[Outcome]


def new_targets() -> Targets:
    """What one throwaway worker is to try to reach."""
    return Targets(processes=PROCESSES, memory=MEMORY)


def untried(reason: str) -> list[Row]:
    """The rows where no worker can be tried out."""
    return [_unproven(profile, reason) for profile in PROFILES]


async def try_out(
    profile: str,
    targets: Targets | None,
    servers: ForkServers,
    context: Context,
    config: HiveConfig,
) -> list[Row]:
    """
    Start a worker, have it try to reach the targets, and end it.

    It counts nowhere: it is no node of the hive, takes no spare, and is in no history.

    Args:
        profile: of the sandbox.
        targets: made for this worker alone; None: it only runs, for all attempts are Linux's.
        servers: start it.
        context: for its sockets.
        config: the settings; paths that these add for workers are left out, since what the user
            allows says nothing about the machine.

    Returns:
        A row about the profile and, where its worker could start, one for each capability.
    """
    try:
        async with asyncio.timeout(config.connect_timeout + _PATIENCE):
            if targets is None:
                return [await _only_run(profile, servers, context, config)]
            return await _try_to_reach(profile, targets, servers, context, config)
    except TimeoutError:
        seconds = format_duration(config.connect_timeout + _PATIENCE)
        return [_unproven(profile, f"its worker was not done within {seconds}")]
    except SandboxUnavailable as refusal:
        return [_refused(profile, refusal.missing)]
    except Exception as error:
        return [_unproven(profile, str(error) or type(error).__name__)]


async def _try_to_reach(
    profile: str, targets: Targets, servers: ForkServers, context: Context, config: HiveConfig
) -> list[Row]:
    policy = SandboxPolicy(
        profile=profile, memory=MEMORY, processes=PROCESSES, connect=(targets.port,)
    )
    launch = _launch(policy, str(targets.project), config)
    trial = await _throw_away(launch, servers, context, targets.attempts)
    crowd = await _throw_away(launch, servers, context, [targets.crowd])
    whole = _Trial(trial.layers, [*trial.outcomes, *crowd.outcomes])
    attempts = [*targets.attempts, targets.crowd]
    return [_started(profile, whole), *_judged(profile, attempts, whole)]


async def _only_run(
    profile: str, servers: ForkServers, context: Context, config: HiveConfig
) -> Row:
    """Where nothing is proven of what a worker is kept from: whether it runs, and what it says."""
    project = servers.runtime.worker_folder()
    try:
        launch = _launch(SandboxPolicy(profile=profile), str(project), config)
        trial = await _throw_away(launch, servers, context, [])
    finally:
        await remove_apart(lambda: remove_tree(project))
    return _started(profile, trial)


def _launch(policy: SandboxPolicy, project: str, config: HiveConfig) -> Launch:
    return Launch(
        interpreter=sys.executable,
        argv=(),
        cwd=project,
        path=(),
        environment=tuple(sorted(worker_environment(config).items())),
        policy=policy,
        root=project,
        protected=folders_of_jupyter(),
    )


# --- the worker ---


async def _throw_away(
    launch: Launch, servers: ForkServers, context: Context, attempts: Sequence[Attempt]
) -> _Trial:
    """
    Have a worker make the attempts, and end it whatever happens.

    Where Hive ends it for having too many processes, that is how all of them ended.

    Raises:
        SandboxUnavailable: this machine cannot enforce what the policy promises.
        HiveError: it does not start, or does not come to an end.
    """
    lack = lack_of_descriptors(_DESCRIPTORS)
    if lack is not None:
        raise HiveError(lack)
    server = servers.of(launch.interpreter, launch.policy)
    process = await server.spawn(launch, _NAME)
    try:
        await _or_ended(process.ready, process)
        channels = Channels(context, process.connection, _NAME, lambda _: process.kill("protocol"))
        try:
            probe = asyncio.ensure_future(channels.probe())
            try:
                await _or_ended(probe, process)
            finally:
                probe.cancel()
            code = _CODE.format(attempts=json.dumps([attempt.call for attempt in attempts]))
            said = await _printed(code, channels, process)
        finally:
            channels.close()
    except HiveError:
        if process.end.by_us != "processes":
            raise
        return _Trial(process.confinement, [{"error": _ENDED}] * len(attempts))
    finally:
        await process.stop()
        await process.remove_folder()
    try:
        return _Trial(process.confinement, json.loads(said))
    except ValueError:
        raise HiveError("its worker did not say what came of it") from None


async def _or_ended(event: asyncio.Future[Any], process: WorkerProcess) -> None:
    """
    Wait for something of a worker.

    Raises:
        HiveError: the worker ended before.
    """
    await first_of(event, process.exited)
    if process.exited.done():
        last = process.log_tail().splitlines()[-1:]
        raise HiveError("; it said last: ".join(["its worker ended", *last]))
    event.result()


async def _printed(code: str, channels: Channels, process: WorkerProcess) -> str:
    """What code prints in a worker."""
    said: list[Message] = []
    run = Run(code, said.append)
    channels.begin(run)
    try:
        await _or_ended(run.done, process)
    finally:
        channels.end(run)
    streams = (message.content for message in said if message.type == "stream")
    return "".join(content["text"] for content in streams if content["name"] == "stdout")


# --- the rows ---


def _started(profile: str, trial: _Trial) -> Row:
    applied = trial.layers
    layers = [name for name in ("seccomp", "namespaces") if applied.get(name)]
    if abi := applied.get("landlock"):
        layers.insert(0, f"Landlock ABI {abi}")
    if applied.get("sandbox-exec"):
        layers.append(_SANDBOX_EXEC)
    notes = []
    if missing := applied.get("missing"):
        notes.append(f"Workers run although this machine cannot confine {', '.join(missing)}.")
    if system.IS_LINUX and not applied.get("namespaces"):
        notes.append("Without namespaces, which containers forbid, workers see more of the others.")
    state = PARTLY if layers else MISSING
    return Row(
        f"sandbox {profile}",
        state if missing else YES,
        f"a worker ran, confined by {', '.join(layers) or 'nothing'}",
        " ".join(notes),
    )


def _refused(profile: str, missing: Iterable[str]) -> Row:
    reason = f"refused: this machine cannot confine {', '.join(missing)}"
    return Row(f"sandbox {profile}", MISSING, reason, f"No cell runs with --sandbox {profile}.")


def _unproven(profile: str, reason: str) -> Row:
    meaning = "Nothing is proven of what confines such workers here."
    return Row(f"sandbox {profile}", MISSING, reason, meaning)


def _judged(profile: str, attempts: Sequence[Attempt], trial: _Trial) -> Iterator[Row]:
    judged: dict[str, list[tuple[Attempt, Outcome, bool]]] = {name: [] for name in _CAPABILITIES}
    for attempt, outcome in zip(attempts, trial.outcomes, strict=True):
        succeeded = "failed" in outcome or attempt.succeeded(outcome)
        judged[attempt.of].append((attempt, outcome, succeeded))
    for name, found in judged.items():
        stopped = [(attempt, outcome) for attempt, outcome, succeeded in found if not succeeded]
        open_to = [(attempt, outcome) for attempt, outcome, succeeded in found if succeeded]
        yield _row(name, profile, trial.layers, stopped, open_to)


_Ended = list[tuple[Attempt, Outcome]]


def _row(
    name: str, profile: str, layers: Mapping[str, Any], stopped: _Ended, open_to: _Ended
) -> Row:
    capability = _CAPABILITIES[name]
    is_promised = profile in capability.promised
    if not stopped and not open_to:
        return Row(name, MISSING, "there was no place to try it", capability.missing, profile)
    if not open_to:
        state, meaning = YES, "" if is_promised else capability.beyond
    elif not is_promised:
        state, meaning = ALLOWED, capability.allowed
    elif stopped:
        could = ", ".join(attempt.what for attempt, _ in open_to)
        state, meaning = PARTLY, f"It could {could}. {capability.missing}"
    else:
        state, meaning = MISSING, capability.missing
    sources = (_source(outcome.get("error", ""), capability, layers) for _, outcome in stopped)
    return Row(
        name,
        state,
        "; ".join(filter(None, (_in_words("could not", stopped), _in_words("could", open_to)))),
        meaning,
        profile,
        ", ".join(dict.fromkeys(sources)),
    )


def _in_words(verb: str, found: _Ended) -> str:
    ends = []
    for attempt, outcome in found:
        why = outcome.get("error") or outcome.get("failed")
        ends.append(f"{attempt.what} ({why})" if why else attempt.what)
    return f"{verb} {', '.join(ends)}" if ends else ""


def _source(error: str, capability: _Capability, layers: Mapping[str, Any]) -> str:
    """What a refusal comes from: the layer that refuses so; "" where nothing came of a success."""
    abi = layers.get("landlock", 0)
    landlock = f"Landlock ABI {abi}" if abi else ""
    seccomp = "seccomp" if layers.get("seccomp") else ""
    namespaces = "namespaces" if layers.get("namespaces") else ""
    mount = "a read-only mount" if namespaces else ""
    found = {
        "EACCES": landlock,
        "EROFS": mount,
        "EBUSY": mount,
        "ENOENT": namespaces,
        "ESRCH": namespaces,
        "": namespaces,
        "EPERM": seccomp,
        "ENOSYS": seccomp,
        "signals": landlock if abi >= _SCOPES_SINCE else seccomp,
        "sockets": seccomp or (landlock if abi >= _SCOPES_SINCE else ""),
        "rights": "no_new_privs, no capabilities",
        "the kernel's count": "the kernel's count",
        "Hive's count": "Hive's count",
        "RLIMIT_DATA": "RLIMIT_DATA",
    }
    return found.get(capability.by.get(error, error), "") or "this system"
