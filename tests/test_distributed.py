"""Runs of `gdstab basin` in processes of their own: killed and resumed, out of room, on several devices, joined."""

import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import threading
import time

import numpy as np
import pytest

from gdstab import records
from gdstab.cli import joining, main
from gdstab.studies.teams import Team

SMALL = ["--step-sizes", "0.2:0.6:3", "--samples", "12288", "--chunk", "384", "--max-steps", "1500", "--seed", "3"]
PARTS = 32
OPTIONS = {"a": 1, "loss": {"name": "scalar"}}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A function that starts `gdstab basin` in a fresh process; all share a cache of compilations."""
    home = tmp_path_factory.mktemp("processes")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([
        "gdstab.cli.driver", "gdstab.studies.lifecycle", "gdstab.studies.basin.study", "gdstab.studies.basin.show",
        "xarray", "zarr.codecs", "matplotlib.backends.backend_pdf",
    ])  # fmt: skip
    started = []

    def begin(out, *words, small=SMALL, variables=None, file_limit=None):
        log = home / f"{len(started)}.log"
        variables = {"XDG_CACHE_HOME": str(home / "cache"), **(variables or {})}
        words = ["basin", *small, "--out", str(out), *words]
        process = context.Process(target=_run, args=(words, str(log), variables, file_limit))
        process.start()
        started.append(process)
        process.log = log
        return process

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


def _run(words, log, variables, file_limit):
    os.environ.update(variables)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.exit(main(words))


def end(process, timeout=120):
    """The exit code of a process, and what it said."""
    process.join(timeout)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode, process.log.read_text()


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert end(start(out))[0] == 0
    return records.load(out)


def assert_same(out, whole):
    """All that was counted and worked out is the same, bit for bit; times and machines are not."""
    found = records.load(out)
    times = ("seconds", "run_seconds", "compile_seconds", "provenance")
    assert {k: v for k, v in found.summary.items() if k not in times} == {
        k: v for k, v in whole.summary.items() if k not in times
    }
    for name, variable in whole.dataset.variables.items():
        np.testing.assert_array_equal(found.dataset[name].values, variable.values, strict=True)
    assert {path.name for path in out.iterdir()} == {
        "run.json", "summary.json", "result.zarr", "figure.png", "figure.pdf",
    }  # fmt: skip


def parts_in(out):
    return len(list(out.glob("parts/*.npz")))


def test_the_whole_run_holds_the_exact_shares(whole):
    for row in whole.summary["rows"]:
        low, high = row["interval"]
        assert low - 1e-3 <= row["exact"] <= high + 1e-3
        assert sum(row["counts"].values()) == row["samples"] == 12288


def test_killed_at_random_moments_and_resumed(start, whole, tmp_path):
    """Once at any time, from the start of the interpreter on; three times while parts are being written."""
    out, rng, survived = tmp_path / "run", random.Random(5), []
    for attempt in range(4):
        process, wanted = start(out, "--resume"), parts_in(out) + rng.randint(1, 4)
        until = time.monotonic() + (rng.uniform(0.02, 0.6) if attempt == 0 else 60)
        while parts_in(out) < wanted and process.is_alive() and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, process.log.read_text()
        survived.append(parts_in(out))
    assert 0 < survived[-1] < PARTS
    assert survived == sorted(survived)
    assert end(start(out, "--resume"))[0] == 0
    assert_same(out, whole)


@pytest.mark.slow
def test_killed_while_the_result_is_written(start, whole, tmp_path):
    out = tmp_path / "run"
    for moment in ("result.zarr.tmp", "result.zarr", "figure.pdf"):
        process = start(out, "--resume")
        while not (out / moment).exists() and process.is_alive():
            time.sleep(0.001)
        process.kill()
        process.join()
    assert end(start(out, "--resume"))[0] == 0
    assert_same(out, whole)


def test_a_disk_without_room_ends_in_a_message_and_a_resumable_directory(start, whole, tmp_path):
    out = tmp_path / "run"
    code, said = end(start(out, file_limit=4000))
    assert code == 2
    assert "Traceback" not in said
    assert "no room" in said.splitlines()[-1]
    assert "--resume" in said.splitlines()[-1]
    assert end(start(out))[0] == 2
    assert end(start(out, "--resume"))[0] == 0
    assert_same(out, whole)


@pytest.mark.slow
def test_two_devices_count_the_same(start, whole, tmp_path):
    out = tmp_path / "run"
    assert end(start(out, variables={"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}))[0] == 0
    assert records.load(out).summary["provenance"]["devices"] == 2
    assert_same(out, whole)


def test_two_processes_count_the_same_as_one(start, whole, tmp_path):
    out = tmp_path / "run"
    words = ["--coordinator", f"localhost:{free_port()}", "--num-processes", "2", "--process-id"]
    found = [start(out, *words, str(number)) for number in (1, 0)]
    codes, said = zip(*map(end, found), strict=True)
    assert codes == (0, 0), said
    assert "has done its share" in said[0]
    assert "step size" in said[1]
    assert records.load(out).summary["provenance"]["processes"] == 2
    assert_same(out, whole)
    again = [start(out, *words, str(number)) for number in (1, 0)]
    assert [end(process)[0] for process in again] == [0, 0]
    assert "nothing was computed" in again[1].log.read_text()


@pytest.mark.slow
def test_what_stops_one_process_stops_all_and_both_go_on_from_disks_of_their_own(start, whole, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"

    def words(number):
        return ["--resume", "--coordinator", f"localhost:{port}", "--num-processes", "2", "--process-id", number]

    port = free_port()
    found = [start(second, *words("1"), file_limit=4000), start(first, *words("0"))]
    codes, said = zip(*map(end, found), strict=True)
    assert codes == (2, 2), said
    assert "no room" in said[0]
    assert "process 1 stopped: there is no room" in said[1].splitlines()[-1]
    assert (parts_in(first), parts_in(second)) == (PARTS // 2, 0)
    assert end(start(first))[0] == 2  # it is interrupted, and says so
    port = free_port()
    found = [start(second, *words("1")), start(first, *words("0"))]
    codes, said = zip(*map(end, found), strict=True)
    assert codes == (0, 0), said
    assert_same(first, whole)
    assert not second.exists()


def test_a_process_that_never_joins_ends_in_one_message(start, tmp_path):
    words = ["--coordinator", f"localhost:{free_port()}", "--num-processes", "3", "--join-timeout", "2"]
    begin = time.monotonic()
    found = [start(tmp_path / "run", *words, "--process-id", number) for number in ("2", "0")]
    for process in found:
        code, said = end(process, 30)
        assert code == 2
        assert "Traceback" not in said
        lines = said.strip().splitlines()
        assert len(lines) == 1
        assert "2 of 3 processes joined within 2 s; missing: process 1." in lines[0]
    assert time.monotonic() - begin < 20
    assert not (tmp_path / "run").exists()


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def meet_all(numbers, size, timeout=5.0, options=None, strangers=()):
    """What becomes of processes that meet: None, or the message of each."""
    port, said = free_port(), {}

    def one(place, order):
        chosen = OPTIONS if options is None else options[place.number]
        try:
            joining.meet(place, timeout, chosen)
            said[order] = None
        except ValueError as error:
            said[order] = str(error)

    places = [joining.Place("localhost", port, number, size) for number in numbers]
    threads = [threading.Thread(target=one, args=(place, order)) for order, place in enumerate(places)]
    for order, thread in enumerate(threads):
        thread.start()
        for words in strangers if order == 0 else ():
            _call(port, words)
    for thread in threads:
        thread.join()
    return [said[order] for order in range(len(numbers))]


def _call(port, words):
    for _ in range(100):
        try:
            with socket.create_connection(("localhost", port), 1) as connection:
                connection.sendall(words)
            return
        except OSError:
            time.sleep(0.02)


def test_processes_meet_in_any_order():
    assert meet_all([2, 1, 0], 3) == [None] * 3
    assert meet_all([0, 1], 2) == [None] * 2


def test_strangers_on_the_port_are_ignored():
    assert meet_all([0, 1], 2, strangers=(b"GET / HTTP/1.1\r\n\r\n", b"", b'{"number": "x"}\n', b"[]\n")) == [None] * 2


@pytest.mark.parametrize(
    ("numbers", "size", "options", "message"),
    [
        ([0, 3], 4, None, "2 of 4 processes joined within 0.5 s; missing: process 1, 2."),
        ([0, 1, 1], 4, None, "two processes were started with --process-id 1"),
        ([0, 1], 2, {0: OPTIONS, 1: {"a": 2, "loss": {"name": "linear"}}}, "they differ in a, loss"),
    ],
)
def test_everybody_is_told_what_is_wrong(numbers, size, options, message):
    said = meet_all(numbers, size, timeout=0.5, options=options)
    assert all(message in text for text in said), said


def test_a_process_that_has_left_again_is_missing():
    port = free_port()
    greeting = json.dumps({"number": 1, "size": 3, "configuration": OPTIONS}).encode() + b"\n"
    caller = threading.Thread(target=_call, args=(port, greeting))
    caller.start()
    with pytest.raises(ValueError, match="missing: process 1, 2"):
        joining.meet(joining.Place("localhost", port, 0, 3), 0.7, OPTIONS)
    caller.join()


def test_a_process_0_that_never_comes_or_cannot_listen():
    with pytest.raises(ValueError, match="process 0 did not answer"):
        joining.meet(joining.Place("localhost", free_port(), 1, 2), 0.3, OPTIONS)
    with socket.create_server(("localhost", 0)) as taken, pytest.raises(ValueError, match="cannot listen on port"):
        joining.meet(joining.Place("localhost", taken.getsockname()[1], 0, 2), 0.3, OPTIONS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"coordinator": "host:1"}, "--num-processes, --process-id is missing"),
        ({"num_processes": 2}, "--coordinator, --process-id is missing"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": 2}, "got 2 of 2"),
        ({"coordinator": "host:1", "num_processes": 0, "process_id": 0}, "got 0 of 0"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": "host:99999", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": 0, "join_timeout": 0.0}, "--join-timeout"),
    ],
)
def test_places_that_make_no_sense(asked, message):
    with pytest.raises(ValueError, match=message):
        joining.find_place(joining.Joining(**asked), {})


SLURM = {"SLURM_JOB_ID": "123456", "SLURM_NTASKS": "3", "SLURM_PROCID": "2", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    "nodes", ["node001", "node001,host2", "node[001-0015],host2", "node[001,007-015],host2", "a,b[1-2]"]
)
def test_slurm_is_read_as_jax_reads_it(nodes, monkeypatch):
    slurm = pytest.importorskip("jax._src.clusters.slurm_cluster")
    environment = {**SLURM, "SLURM_STEP_NODELIST": nodes}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    address = slurm.SlurmCluster.get_coordinator_address(None, None)
    place = joining.find_place(joining.Joining(), environment)
    assert f"{place.host}:{place.port}" == address
    assert (place.number, place.size, place.local_devices) == (2, 3, (1,))


def test_slurm_gives_way():
    environment = {**SLURM, "SLURM_STEP_NODELIST": "node001"}
    assert joining.find_place(joining.Joining(num_processes=1), environment) is None
    assert joining.find_place(joining.Joining(), {**environment, "SLURM_NTASKS": "1"}) is None
    given = joining.find_place(joining.Joining(coordinator="[::1]:70"), environment)
    assert (given.host, given.port, given.number, given.size) == ("::1", 70, 2, 3)


def test_a_team_of_one():
    team = Team()
    assert team.leads
    assert team.in_turn(lambda: 5) == 5
    assert [team.told(True), team.told(False)] == [True, False]
    with pytest.raises(ZeroDivisionError):
        team.together(lambda: 1 // 0)
