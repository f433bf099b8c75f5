"""Run directories: begun, refused, resumed, complete, read back."""

import json

import numpy as np
import pytest
import xarray as xr

from gdstab import records

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
