"""Run directories: begun, refused, resumed, complete, read back; damaged, killed while written, on a full disk."""

import errno
import json
import os
import pathlib
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import xarray as xr

from gdstab import records
from gdstab.records import ledger

CONFIGURATION = {"step_size": 0.3, "loss": {"name": "scalar", "scale": 1.0}}


def dataset():
    cells = np.arange(12, dtype=np.int32).reshape(3, 4) - 1
    return xr.Dataset(
        {"steps": (("x0", "x1"), cells), "none": ("cell", np.zeros(0, np.int64))}, {"x0": [0.0, 1.0, 2.0]}
    )


def test_a_run_is_complete_once_it_has_a_summary(tmp_path):
    record = records.begin(tmp_path / "a" / "b", CONFIGURATION)
    assert not record.complete
    record.write_dataset(dataset())
    record = record.finish({"cells": 12})
    assert record.complete
    loaded = records.load(tmp_path / "a" / "b")
    assert loaded.summary == {"schema": records.SCHEMA, "configuration": CONFIGURATION, "cells": 12}
    xr.testing.assert_identical(loaded.dataset.load(), dataset())
    assert loaded.dataset["steps"].dtype == np.int32
    again = records.begin(tmp_path / "a" / "b", CONFIGURATION)
    assert again.complete
    assert not list((tmp_path / "a" / "b").glob("*.tmp"))


def test_chunks_that_hold_only_the_fill_value_are_written(tmp_path):
    record = records.begin(tmp_path / "run", CONFIGURATION)
    record.write_dataset(xr.Dataset({"steps": (("x0",), np.full(5, -1, np.int32))}))
    assert (tmp_path / "run" / "result.zarr" / "steps" / "c" / "0").is_file()


def test_a_damaged_chunk_is_noticed(tmp_path):
    record = records.begin(tmp_path / "run", CONFIGURATION)
    record.write_dataset(dataset())
    chunk = tmp_path / "run" / "result.zarr" / "steps" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="checksum"):
        record.dataset["steps"].load()


def test_another_configuration_is_refused_by_name(tmp_path):
    records.begin(tmp_path / "run", CONFIGURATION).finish({})
    other = {"step_size": 0.3, "loss": {"name": "scalar", "scale": 0.5}, "seed": 1}
    for resume in (False, True):
        with pytest.raises(records.RunError, match=r"loss\.scale, seed.*--overwrite"):
            records.begin(tmp_path / "run", other, resume=resume)
    assert not records.begin(tmp_path / "run", other, overwrite=True).complete


def test_an_interrupted_run_wants_resume_or_overwrite(tmp_path):
    record = records.begin(tmp_path / "run", CONFIGURATION)
    record.commit(0, steps=np.arange(3))
    with pytest.raises(records.RunError, match="--resume"):
        records.begin(tmp_path / "run", CONFIGURATION)
    resumed = records.begin(tmp_path / "run", CONFIGURATION, resume=True)
    assert [part["steps"].tolist() for part in resumed.parts()] == [[0, 1, 2]]
    assert not list(records.begin(tmp_path / "run", CONFIGURATION, overwrite=True).parts())


def test_parts_end_before_the_first_damaged_one(tmp_path):
    record = records.begin(tmp_path, CONFIGURATION)
    for number in range(4):
        record.commit(number, value=np.full(100, number))
    damaged = tmp_path / "parts" / "00000002.npz"
    content = bytearray(damaged.read_bytes())
    content[300] ^= 1
    damaged.write_bytes(content)
    assert [part["value"][0] for part in record.parts()] == [0, 1]
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["00000000.npz", "00000001.npz"]


def test_foreign_files_are_never_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(records.RunError, match="holds files, but no run"):
        records.begin(tmp_path, CONFIGURATION, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(records.RunError, match="is a file"):
        records.begin(tmp_path / "notes.txt", CONFIGURATION)


def test_an_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(records.RunError, match="cannot"):
        records.begin(tmp_path / "file" / "run", CONFIGURATION)


def test_what_would_not_fit_on_disk_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(records.RunError, match="lower the resolution"):
        records.begin(tmp_path / "run", CONFIGURATION, bytes_needed=10**18)
    assert not (tmp_path / "run").exists()


def test_a_damaged_summary_is_refused(tmp_path):
    records.begin(tmp_path, CONFIGURATION).finish({})
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(records.RunError, match="damaged"):
        records.load(tmp_path)


def test_load_wants_a_run(tmp_path):
    with pytest.raises(records.RunError, match="holds no run"):
        records.load(tmp_path / "nowhere")


def test_provenance_is_json_and_names_nobody():
    found = records.provenance("float32", seed=3)
    assert found["dtype"] == "float32"
    assert found["seed"] == 3
    assert {"jax", "gdstab", "matmul_precision", "device_kind", "cores"} <= set(json.loads(json.dumps(found)))


def test_parts_by_number_where_some_are_missing(tmp_path):
    record = records.begin(tmp_path, CONFIGURATION)
    for number in (5, 0, 2, 3):
        record.commit(number, value=np.full(3, number), scalar=number, empty=np.zeros((2, 0)), word=np.str_("ja"))
    found = record.found()
    assert list(found) == [0, 2, 3, 5]
    for number, arrays in found.items():
        assert arrays["value"].tolist() == [number] * 3
        assert (arrays["scalar"].shape, arrays["empty"].shape, str(arrays["word"])) == ((), (2, 0), "ja")
    assert record.found(lambda arrays: int(arrays["scalar"]))[3] == 3
    assert (found.get(1), len(found)) == (None, 4)
    (tmp_path / "parts" / "notes.npz").write_text("mine")
    assert list(record.found()) == [0, 2, 3, 5]


def test_no_byte_of_a_part_can_change_unnoticed(tmp_path):
    """Every single byte in turn, names and shapes included: the part is read as it was, or not at all.

    The lowest bit of one byte, the highest of the next.
    """
    record = records.begin(tmp_path, CONFIGURATION)
    wanted = {"counts": np.arange(6, dtype=np.int64).reshape(2, 3), "sum": np.array(0.5), "none": np.zeros((0, 4))}
    record.commit(7, **wanted)
    path = tmp_path / "parts" / "00000007.npz"
    whole, noticed = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1, 0x80)[place % 2]]) + whole[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's parser of headers has opinions on damaged text
            found = record.found().get(7)
        if found is None:
            noticed += 1
            continue
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    assert noticed > len(whole) / 2.5  # the rest are dates, padding, and the clock, which is no array
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert 7 not in record.found()


def test_a_full_disk_says_how_to_go_on(tmp_path, monkeypatch):
    record = records.begin(tmp_path / "run", CONFIGURATION)
    record.commit(0, value=np.arange(3))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(records.RunError, match=r"no room.*free some space.*--resume"):
            record.commit(1, value=np.arange(3))
        patch.setattr(os, "fsync", full)
        with pytest.raises(records.RunError, match="no room"):
            record.finish({})
        with pytest.raises(records.RunError, match="no room"):
            record.write_dataset(dataset())
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "replace", full)
        with pytest.raises(records.RunError, match="no room"):
            record.write_dataset(dataset())
    names = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    assert names == {"run.json", "parts", "parts/00000000.npz"}
    resumed = records.begin(tmp_path / "run", CONFIGURATION, resume=True)
    assert [arrays["value"].tolist() for arrays in resumed.found().values()] == [[0, 1, 2]]


def test_other_trouble_with_the_disk_is_named(tmp_path, monkeypatch):
    record = records.begin(tmp_path, CONFIGURATION)

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(records.RunError, match=r"cannot write.*Input/output error.*--resume"):
        record.commit(0, value=np.arange(3))


def test_a_limit_on_the_size_of_files_is_met_by_the_system_itself(tmp_path):
    """No simulation: the kernel refuses to write past RLIMIT_FSIZE."""
    code = f"""
import resource, sys
import numpy as np
from gdstab import records
from gdstab.records import ledger
record = records.begin({str(tmp_path / "run")!r}, {{"a": 1}})
record.commit(0, value=np.zeros(10))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    record.commit(1, value=np.zeros(10_000))
except records.RunError as error:
    print(error)
    sys.exit(2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "--resume" in done.stdout
    assert [path.name for path in (tmp_path / "run" / "parts").iterdir()] == ["00000000.npz"]
    assert list(records.begin(tmp_path / "run", {"a": 1}, resume=True).found()) == [0]


@pytest.mark.parametrize("victim", ["run.json", "summary.json"])
def test_a_kill_while_json_is_written_leaves_a_usable_directory(victim, tmp_path):
    """What a killed process leaves is its unfinished file under another name."""
    path = tmp_path / "run"
    if victim == "run.json":
        path.mkdir()
    else:
        records.begin(path, CONFIGURATION).commit(0, value=np.arange(3))
    (path / f"{victim}.123.tmp").write_text("{")
    record = records.begin(path, CONFIGURATION, resume=True).finish({})
    assert record.complete
    assert {entry.name for entry in path.iterdir()} == {"run.json", "summary.json"}


def test_a_kill_between_the_summary_and_the_end_leaves_nothing_behind(tmp_path, monkeypatch):
    record = records.begin(tmp_path, CONFIGURATION)
    record.commit(0, value=np.arange(3))
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "drop_parts", lambda _: None)
        record.finish({})
    assert (tmp_path / "parts").exists()
    assert records.begin(tmp_path, CONFIGURATION).complete
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "summary.json"}


def whole_run(path):
    """A complete run of every kind of file."""
    record = records.begin(path, CONFIGURATION)
    record.commit(0, value=np.arange(3))
    record.write_dataset(dataset())
    for name in ("figure.png", "start_1.png"):
        record.write(name, lambda file: file.write(b"drawn"))
    return record.finish({"cells": 12})


def names_in(path):
    return {entry.relative_to(path).as_posix() for entry in path.rglob("*") if not entry.is_dir()}


def test_an_overwrite_removes_what_the_run_wrote_and_no_other_file(tmp_path):
    """Whatever others are called: as pictures of other studies, as parts, as runs of their own."""
    whole_run(tmp_path / "run")
    foreign = {
        "figure_for_my_talk.png", "network.png", "start_2.png", "summary.json.bak", "data.tmp", "parts/notes.npz",
        "inner/run.json", "inner/summary.json", "figures/figure.png",
    }  # fmt: skip
    for name in foreign - {"inner/run.json", "inner/summary.json"}:
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    records.begin(tmp_path / "run" / "inner", CONFIGURATION).finish({})
    (tmp_path / "run" / "start_1.png").unlink()  # what is gone needs no removal
    records.begin(tmp_path / "run", {"other": 1}, overwrite=True).finish({})
    assert names_in(tmp_path / "run") == {"run.json", "summary.json", *foreign}
    assert records.load(tmp_path / "run" / "inner").complete


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("figure.png", lambda path: path.write_bytes(b"drawn upon")),
        ("summary.json", lambda path: path.write_text("{}")),
        ("result.zarr/steps/c/0/0", lambda path: path.write_bytes(b"")),
        ("result.zarr/notes.txt", lambda path: path.write_text("mine")),
        ("figure.pdf", lambda path: path.write_text("a name that the next run may need")),
        ("start_1.png", lambda path: (path.rename(path.parent.parent / "moved.png"), path.symlink_to("../moved.png"))),
        ("result.zarr", lambda path: (path.rename(path.parent.parent / "big"), path.symlink_to("../big"))),
    ],
)
def test_an_overwrite_that_would_lose_what_was_changed_is_refused_whole(name, change, tmp_path):
    whole_run(tmp_path / "run")
    change(tmp_path / "run" / name)
    before = names_in(tmp_path / "run")
    with pytest.raises(records.RunError, match=rf"{name}.*move it away, or choose another") as refused:
        records.begin(tmp_path / "run", {"other": 1}, overwrite=True)
    assert "\n" not in str(refused.value)
    assert names_in(tmp_path / "run") == before


def test_a_run_never_writes_over_what_is_not_its_own(tmp_path):
    record = records.begin(tmp_path, CONFIGURATION)
    record.write("claims.json", lambda file: file.write(b"1"))
    record.write("claims.json", lambda file: file.write(b"2"))  # its own it may
    (tmp_path / "figure.png").write_text("mine")
    (tmp_path / "result.zarr").mkdir()
    (tmp_path / "result.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(records.RunError, match=r"figure\.png"):
        record.write("figure.png", lambda file: file.write(b"drawn"))
    with pytest.raises(records.RunError, match=r"result\.zarr/notes\.txt"):
        record.write_dataset(dataset())
    with pytest.raises(records.RunError, match=r"figure\.png.*--resume"):
        records.begin(tmp_path, CONFIGURATION, resume=True)  # before anything is computed
    assert (tmp_path / "figure.png").read_text() == "mine"
    assert names_in(tmp_path) == {"run.json", "claims.json", "figure.png", "result.zarr/notes.txt"}


@pytest.mark.parametrize("victim", ["figure.png", "result.zarr", "summary.json"])
@pytest.mark.parametrize("first", [True, False])
def test_a_kill_between_the_list_and_the_file_leaves_a_usable_directory(victim, first, tmp_path, monkeypatch):
    """Whether a file of that name was there before or not."""

    def work(record):
        record.write("figure.png", lambda file: file.write(os.urandom(8)))
        record.write_dataset(dataset())
        record.finish({})

    record, replace = records.begin(tmp_path, CONFIGURATION), os.replace
    if not first:
        record.write("figure.png", lambda file: file.write(b"drawn"))
        record.write_dataset(dataset())

    def killed(source, target):
        if pathlib.Path(target).name == victim:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            work(record)
    work(records.begin(tmp_path, CONFIGURATION, resume=True))
    assert records.load(tmp_path).dataset["steps"].shape == (3, 4)
    assert not records.begin(tmp_path, {"other": 1}, overwrite=True).complete
    assert names_in(tmp_path) == {"run.json"}


@pytest.mark.parametrize(
    ("summary", "own", "foreign"),
    [
        ({"configuration": CONFIGURATION}, {"figure.png", "figure.pdf"}, {"network.png", "orbit.png"}),
        ({"configuration": CONFIGURATION, "figures": ["figure", "network"]}, {"network.png"}, {"manifold.png"}),
        ({"configuration": {"study": "multipliers"}}, {"orbit.pdf"}, {"network.png"}),
        (None, set(), {"network.png"}),
    ],
)
def test_a_run_from_before_there_were_lists(summary, own, foreign, tmp_path):
    """It is read, resumed and replaced; only names that such a run gives are taken for its own."""
    configuration = (summary or {}).get("configuration", CONFIGURATION)
    record = records.begin(tmp_path, configuration)
    record.write_dataset(dataset())
    record.commit(0, value=np.arange(3))
    (tmp_path / "run.json").write_text(json.dumps({"schema": 1, "configuration": configuration}))
    if summary is not None:
        (tmp_path / "summary.json").write_text(json.dumps({"schema": 1, **summary}))
    for name in own | foreign:
        (tmp_path / name).write_text("")
    assert records.load(tmp_path).complete == (summary is not None)
    assert records.begin(tmp_path, configuration, resume=True).dataset.sizes == {"x0": 3, "x1": 4, "cell": 0}
    records.begin(tmp_path, {"other": 1}, overwrite=True)
    assert names_in(tmp_path) == {"run.json", *foreign}


@pytest.mark.parametrize("name", ["~", "a::b", "s3:", "file:", "[x] *?", "ü %20#", "result.zarr"])
def test_directories_of_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole_run(pathlib.Path(name))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    xr.testing.assert_identical(records.load(name).dataset.load(), dataset())


def test_the_time_of_a_resumed_run_is_that_of_all_who_worked_on_it(tmp_path, monkeypatch):
    now = [0]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    for begun, ends, process in ((1, (3, 4), 0), (10, (16,), 0), (2, (8,), 1), (20, (), 0)):
        now[0] = begun * 10**9
        record = records.begin(tmp_path, CONFIGURATION, resume=True, process=process)
        for end in ends:
            now[0] = end * 10**9
            record.commit(end, value=np.zeros(1))
    assert record.seconds_before() == (4 - 1) + (16 - 10)  # the other process worked for 6 s meanwhile
    now[0] = 30 * 10**9
    record.commit(30, value=np.zeros(1))
    assert record.seconds_before() == 9


def test_an_overwrite_that_is_killed_can_be_repeated(tmp_path, monkeypatch):
    whole_run(tmp_path / "run")
    removed = []

    def unlink(path, missing_ok=False):
        if removed:
            raise KeyboardInterrupt
        removed.append(path.name)
        os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            records.begin(tmp_path / "run", {"other": 1}, overwrite=True)
    assert removed == ["summary.json"]
    assert not records.load(tmp_path / "run").complete
    assert records.begin(tmp_path / "run", {"other": 1}, overwrite=True).configuration == {"other": 1}


def test_processes_that_share_a_disk_share_the_directory(tmp_path):
    records.begin(tmp_path / "run", CONFIGURATION)
    second = records.begin(tmp_path / "run", CONFIGURATION, process=1)
    second.commit(1, value=np.arange(3))
    second.retire()
    assert list(records.begin(tmp_path / "run", CONFIGURATION, resume=True).found()) == [1]
    with pytest.raises(records.RunError, match="differs in step_size"):
        records.begin(tmp_path / "run", {**CONFIGURATION, "step_size": 0.2}, process=1)


def test_a_process_with_a_disk_of_its_own_has_a_directory_of_its_own(tmp_path):
    begun = records.begin(tmp_path / "mine", CONFIGURATION, process=1)
    begun.commit(1, value=np.arange(3))
    with pytest.raises(records.RunError, match="--resume"):
        records.begin(tmp_path / "mine", CONFIGURATION, process=1)
    again = records.begin(tmp_path / "mine", CONFIGURATION, process=1, resume=True)
    assert list(again.found()) == [1]
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    again.retire()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


HOLDER = """
import sys, time
from gdstab import records
records.begin(sys.argv[1], {"study": "tea"})
print("held", flush=True)
time.sleep(60)
"""


def test_two_living_processes_do_not_write_one_directory(tmp_path):
    """The second is refused in one line; once the first is gone, however it went, the run can be taken up."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        for change in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(records.RunError, match="is being written by another process"):
                records.begin(tmp_path / "run", {"study": "tea"}, **change)
        holder.kill()
    record = records.begin(tmp_path / "run", {"study": "tea"}, resume=True)
    record.release()
    assert records.begin(tmp_path / "run", {"study": "tea"}, resume=True).finish({}).complete
