"""Several processes on one run: who and where they are, and how they find each other before JAX is asked to join them.

`jax.distributed.initialize` aborts the interpreter where a process never comes. So all of them first report to process
0 over TCP, on the very port that JAX will use, and go on only once everybody is there.
"""

import contextlib
import dataclasses
import json
import math
import os
import socket
import time
from collections.abc import Mapping

_LINE = 2**16  # bytes of a greeting or of an answer, at the most
_PATIENCE = 5.0  # seconds that a connection may be silent
_GO = "go"


@dataclasses.dataclass(frozen=True)
class Joining:
    """Which process of which run this is; not part of the configuration of a result."""

    coordinator: str | None = None
    """HOST:PORT of process 0, the same for all processes of a run; found by itself under SLURM"""
    num_processes: int | None = None
    """how many processes there are in all; found by itself under SLURM"""
    process_id: int | None = None
    """which of them this is, from 0; found by itself under SLURM"""
    join_timeout: float = 60.0
    """seconds to wait until all processes have joined"""


@dataclasses.dataclass(frozen=True)
class Place:
    """Of which process of how many, and where process 0 listens."""

    host: str
    port: int
    number: int
    size: int
    local_devices: tuple[int, ...] | None = None


def find_place(asked: Joining, environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place of this process among several; None if it is alone.

    Under SLURM what is not given comes from the environment that `srun` sets, by the rules of
    `jax.distributed.initialize`: one device for each process of a node, and a port made from the number of the job.

    Raises
    ------
    ValueError
        If only some of the three options are there, or they make no sense.

    Examples
    --------
    >>> find_place(Joining("localhost:1234", 2, 1), {})
    Place(host='localhost', port=1234, number=1, size=2, local_devices=None)
    >>> find_place(Joining(), {})
    """
    given = {"coordinator": asked.coordinator, "num-processes": asked.num_processes, "process-id": asked.process_id}
    found = _slurm(environment) if asked.num_processes != 1 else {}
    values = {name: found.get(name) if value is None else value for name, value in given.items()}
    alone = asked.num_processes in {None, 1} and asked.coordinator is None and asked.process_id is None
    if alone and not found:
        return None
    missing = [f"--{name}" for name, value in values.items() if value is None]
    if missing:
        raise ValueError(
            f"--coordinator, --num-processes and --process-id belong together, but {', '.join(missing)} is missing: "
            "give all three to every process (under SLURM, start them with srun and give none)"
        )
    size, number = values["num-processes"], values["process-id"]
    if size < 1 or not 0 <= number < size:
        raise ValueError(f"--process-id counts from 0 to --num-processes - 1, but got {number} of {size} processes")
    if not (math.isfinite(asked.join_timeout) and asked.join_timeout > 0):
        raise ValueError(f"--join-timeout takes a positive number of seconds, but got {asked.join_timeout}")
    host, port = _address(values["coordinator"])
    return Place(host, port, number, size, found.get("local-devices")) if size > 1 else None


def join(place: Place, timeout: float, configuration: dict) -> None:
    """Wait until all processes are there with the same configuration, then let JAX join them.

    Raises
    ------
    ValueError
        If some do not come in time: which. If one was started with other options, or two say the same number.
    """
    meet(place, timeout, configuration)
    import jax  # noqa: PLC0415 (not before all are there)

    with contextlib.suppress(AttributeError):  # where there is such a service it swallows SIGTERM
        jax.config.update("jax_enable_preemption_service", False)
    host = f"[{place.host}]" if ":" in place.host else place.host
    jax.distributed.initialize(
        f"{host}:{place.port}", place.size, place.number, local_device_ids=place.local_devices,
        cluster_detection_method="deactivate", initialization_timeout=math.ceil(timeout) + 10,
    )  # fmt: skip


def meet(place: Place, timeout: float, configuration: dict) -> None:
    """As `join`, without JAX: return once all processes have said that they are there."""
    until = time.monotonic() + timeout
    if place.number:
        _report(place, until, timeout, configuration)
    else:
        _expect(place, until, timeout, configuration)


def _expect(place: Place, until: float, timeout: float, configuration: dict) -> None:
    """Process 0: take the greetings, and tell everybody how it went."""
    with contextlib.ExitStack() as connections:
        there, wrong = _take_greetings(place, until, configuration, connections)
        gone = {number for number, connection in there if _has_left(connection)}
        missing = sorted({*range(1, place.size)} - {number for number, _ in there} | gone)
        if wrong is None and missing:
            wrong = (
                f"{place.size - len(missing)} of {place.size} processes joined within {timeout:g} s; missing: process "
                f"{', '.join(map(str, missing))}. Start every one of them with the same --coordinator (its port must "
                "be open) and --num-processes, or raise --join-timeout."
            )
        for _, connection in there:
            _answer(connection, wrong or _GO)
    if wrong:
        raise ValueError(wrong)


def _take_greetings(place: Place, until: float, configuration: dict, connections: contextlib.ExitStack):
    """Numbers and connections of the processes that came, and what is wrong with the last, if anything.

    The port is free again when this returns: nobody may hear before that JAX is to use it.
    """
    there: list[tuple[int, socket.socket]] = []
    with _listener(place.port) as listener:
        while len(there) < place.size - 1 and (left := until - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                connection = connections.enter_context(listener.accept()[0])
            except OSError:
                continue
            said = _parse_greeting(_read(connection, min(_PATIENCE, left)))
            if said is None:
                continue  # a stranger
            wrong = _objection(said, place, {number for number, _ in there}, configuration)
            there.append((said[0], connection))
            if wrong:
                return there, wrong
    return there, None


def _report(place: Place, until: float, timeout: float, configuration: dict) -> None:
    """The other processes: greet process 0, and wait for its answer."""
    connection = None
    while connection is None:
        try:
            connection = socket.create_connection((place.host, place.port), max(until - time.monotonic(), 0.1))
        except OSError as error:
            if time.monotonic() >= until:
                raise ValueError(
                    f"process 0 did not answer at {place.host}:{place.port} within {timeout:g} s ({error}): start it "
                    "with the same --coordinator, see that its port is open, or raise --join-timeout."
                ) from error
            time.sleep(0.05)
    with connection:
        greeting = {"number": place.number, "size": place.size, "configuration": configuration}
        connection.sendall(json.dumps(greeting).encode() + b"\n")
        answer = _read(connection, max(until - time.monotonic(), 0) + timeout + _PATIENCE)
    if answer != _GO:
        raise ValueError(answer or f"process 0 at {place.host}:{place.port} left before all processes had joined.")


def _parse_greeting(line: str) -> tuple[int, int, dict] | None:
    try:
        said = json.loads(line)
        return int(said["number"]), int(said["size"]), dict(said["configuration"])
    except (ValueError, TypeError, KeyError):
        return None


def _objection(said: tuple[int, int, dict], place: Place, there: set[int], configuration: dict) -> str | None:
    """What is wrong with a process that has greeted; None if it fits."""
    number, size, theirs = said
    if size != place.size or not 0 < number < place.size:
        return f"process {number} was started as one of {size} processes, but process 0 as one of {place.size}."
    if number in there:
        return f"two processes were started with --process-id {number}: give every process a number of its own."
    mine = json.loads(json.dumps(configuration))
    if theirs != mine:
        names = ", ".join(sorted(name for name in {*theirs, *mine} if theirs.get(name) != mine.get(name)))
        return f"process {number} was started with other options than process 0; they differ in {names}."
    return None


def _listener(port: int) -> socket.socket:
    """A socket that takes connections to any address of this machine, as JAX's own does."""
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=128
        )
    except OSError as error:
        raise ValueError(
            f"process 0 cannot listen on port {port} of this machine ({error.strerror or error}): choose another "
            "--coordinator for all processes."
        ) from error


def _read(connection: socket.socket, patience: float) -> str:
    """One line; what there is of it if the other side falls silent or leaves."""
    data, until = b"", time.monotonic() + patience
    with contextlib.suppress(OSError):
        while b"\n" not in data and len(data) < _LINE and (left := until - time.monotonic()) > 0:
            connection.settimeout(left)
            more = connection.recv(4096)
            if not more:
                break
            data += more
    return data.decode(errors="replace").strip()


def _answer(connection: socket.socket, words: str) -> None:
    """Send a line and wait until the other side hangs up: who does so first keeps its port busy for a while."""
    with contextlib.suppress(OSError):
        connection.settimeout(_PATIENCE)
        connection.sendall(words.encode() + b"\n")
        connection.recv(1)


def _has_left(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(f"--coordinator takes HOST:PORT with a port from 1 to 65535, but got {text!r}")
    return host.strip("[]"), int(port)


def _slurm(environment: Mapping[str, str]) -> dict:
    """What `srun` says of a job of several processes; nothing elsewhere."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if not all(name in environment for name in names) or int(environment["SLURM_NTASKS"]) < 2:
        return {}
    job, nodes, tasks, number, local = (environment[name] for name in names)
    prefix, bracket, rest = nodes.partition("[")
    first = prefix.partition(",")[0]
    if bracket and "," not in prefix:  # node[001-004,007],other
        first += rest.partition("]")[0].partition(",")[0].partition("-")[0]
    return {
        "coordinator": f"{first}:{int(job) % 2**12 + 2**16 - 2**12}",
        "num-processes": int(tasks),
        "process-id": int(number),
        "local-devices": (int(local),),
    }
