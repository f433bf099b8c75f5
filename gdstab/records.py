"""Results on disk: a directory per run, its configuration first, its arrays and figures, and its summary last.

A directory holds `run.json` (the configuration, written before anything runs), `parts/` (what a long run has finished
so far), `result.zarr`, the figures, and `summary.json`, whose presence says that the run is complete. Every file
appears under its name only when it is whole.
"""

import dataclasses
import datetime
import functools
import json
import os
import platform
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import gdstab

SCHEMA = 1
"""Version of the layout of `run.json` and `summary.json`."""

CHUNK = 1024
"""Side of a chunk of `result.zarr`."""

_OWN_FILES = ("summary.json", "run.json", "parts", "result.zarr", "figure.png", "figure.pdf")


class RunError(ValueError):
    """A run directory that cannot be used as asked; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A run directory; `summary` is None until the run is complete."""

    path: Path
    configuration: dict
    summary: dict | None

    @property
    def complete(self) -> bool:
        """Whether the run has ended and nothing is left to do."""
        return self.summary is not None

    @functools.cached_property
    def dataset(self):
        """The arrays, as an `xarray.Dataset` that reads from disk on demand."""
        import xarray as xr  # noqa: PLC0415 (machines without a network may lack it)

        return xr.open_zarr(self.path / "result.zarr", consolidated=False, chunks=None)

    def commit(self, number: int, **arrays) -> None:
        """Keep a finished part of the run: one file with a checksum for each array, whole or not there."""
        folder = self.path / "parts"
        folder.mkdir(exist_ok=True)
        target = folder / f"{number:08d}.npz"
        with open(target.with_suffix(".tmp"), "wb") as file:
            np.savez(file, **arrays)
            _flush(file)
        os.replace(target.with_suffix(".tmp"), target)

    def parts(self) -> Iterator[dict[str, np.ndarray]]:
        """The finished parts from number 0 on, up to the first that is missing or damaged; what follows is removed."""
        number = 0
        while (arrays := _read_part(self.path / "parts" / f"{number:08d}.npz")) is not None:
            yield arrays
            number += 1
        for stale in sorted((self.path / "parts").glob("*.npz")):
            if int(stale.stem) >= number:
                stale.unlink()

    def write_dataset(self, dataset) -> None:
        """Write `result.zarr`: zarr 3, compressed, every chunk with a checksum, also those that look empty."""
        from zarr.codecs import Crc32cCodec, ZstdCodec  # noqa: PLC0415 (machines without a network may lack it)

        encoding = {
            # A chunk that holds only the fill value is not written, and then cannot be told from one that was lost.
            name: {
                "chunks": tuple(min(size, CHUNK) for size in variable.shape),
                "compressors": (ZstdCodec(), Crc32cCodec()),
                **({"fill_value": -1} if np.issubdtype(variable.dtype, np.signedinteger) else {}),
            }
            for name, variable in dataset.data_vars.items()
            if variable.size and variable.ndim
        }
        target, partial = self.path / "result.zarr", self.path / "result.zarr.tmp"
        for folder in (target, partial):
            shutil.rmtree(folder, ignore_errors=True)
        dataset.to_zarr(
            partial, mode="w", zarr_format=3, consolidated=False, encoding=encoding, write_empty_chunks=True
        )
        os.replace(partial, target)

    def finish(self, summary: dict) -> "Record":
        """Write `summary.json`, which makes the run complete, and drop the parts; the complete record."""
        summary = {"schema": SCHEMA, "configuration": self.configuration, **summary}
        _write_json(self.path / "summary.json", summary)
        shutil.rmtree(self.path / "parts", ignore_errors=True)
        return dataclasses.replace(self, summary=_read_json(self.path / "summary.json"))


def begin(path, configuration: dict, *, bytes_needed: int = 0, overwrite: bool = False, resume: bool = False) -> Record:
    """Open a directory for a run, or say why not.

    A complete run of the same configuration is returned as it is (`record.complete`), unless `overwrite`.

    Raises
    ------
    RunError
        If the directory cannot be written or lacks room for `bytes_needed`; if it holds another configuration (the
        keys that differ are named), an interrupted run and neither `overwrite` nor `resume` is set, or files of
        somebody else.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = begin(folder, {"step_size": 0.3})
    ...     before = record.complete
    ...     record = record.finish({"cells": 4})
    ...     before, record.complete, load(folder).summary["cells"]
    (False, True, 4)
    """
    path = Path(path)
    configuration = json.loads(json.dumps(configuration))
    found = _existing(path)
    if found is not None and not overwrite:
        keys = differing_keys(found.configuration, configuration)
        if keys:
            raise RunError(
                f"{path} holds a run of another configuration; it differs in {', '.join(keys)}. Choose another "
                "directory with --out, or replace the run with --overwrite."
            )
        if found.complete:
            return found
        if not resume:
            raise RunError(
                f"{path} holds an interrupted run of this configuration: continue it with --resume, or begin again "
                "with --overwrite."
            )
    check_room(path, bytes_needed)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if overwrite:
            _clear(path)
        _write_json(path / "run.json", {"schema": SCHEMA, "configuration": configuration})
    except OSError as error:
        raise RunError(
            f"cannot write to {path}: {error.strerror or error}. Choose another directory with --out."
        ) from error
    return Record(path, configuration, None)


def load(path) -> Record:
    """Read a run directory back: `.summary`, `.configuration`, `.dataset`."""
    found = _existing(Path(path))
    if found is None:
        raise RunError(f"{path} holds no run: expected a directory with a run.json, as `gdstab heatmap` writes it.")
    return found


def check_room(path, bytes_needed: int) -> None:
    """Refuse a result that would not fit on the disk of `path`, before anything runs."""
    home = next(folder for folder in (Path(path).absolute(), *Path(path).absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(home).free
    if bytes_needed > free:
        raise RunError(
            f"the results may take {_in_words(bytes_needed)}, but {path} has {_in_words(free)} left: lower the "
            "resolution, or choose another disk with --out."
        )


def differing_keys(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Names of the entries in which two configurations differ, nested ones with dots.

    >>> differing_keys({"a": 1, "loss": {"scale": 1.0}}, {"a": 2, "loss": {"scale": 0.5}})
    ['a', 'loss.scale']
    """
    names = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += differing_keys(a, b, f"{prefix}{key}.")
        elif a != b or (key in old) != (key in new):
            names.append(prefix + key)
    return names


def provenance(dtype, *, seed: int | None = None) -> dict:
    """What a result was made with; no names of people or machines."""
    devices = jax.local_devices()
    return {
        "gdstab": gdstab.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "dtype": str(np.dtype(dtype)),
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "seed": seed,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _existing(path: Path) -> Record | None:
    """The run in a directory; None where there is nothing; an error where there is something else."""
    try:
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        if not path.is_dir() or not (path / "run.json").is_file():
            what = "holds files, but no run" if path.is_dir() else "is a file"
            raise RunError(f"{path} {what}: choose an empty or a new directory with --out.")
        configuration = _read_json(path / "run.json")["configuration"]
        summary = _read_json(path / "summary.json") if (path / "summary.json").exists() else None
    except OSError as error:
        raise RunError(f"cannot use {path}: {error.strerror or error}. Choose another directory with --out.") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RunError(f"{path} holds a damaged run.json or summary.json: remove it, or choose another.") from error
    return Record(path, configuration, summary)


def _clear(path: Path) -> None:
    """Remove what a run wrote, its summary first, and nothing else."""
    for name in _OWN_FILES:
        target = path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _read_part(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: dict) -> None:
    partial = path.with_suffix(".tmp")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")
        _flush(file)
    os.replace(partial, path)


def _flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _in_words(size: int) -> str:
    """A number of bytes for people.

    >>> _in_words(5_000_000)
    '5 MB'
    """
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"
