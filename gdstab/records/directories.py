"""A run's directory: begun or refused, its parts as they are finished, its result, its summary."""

import contextlib
import dataclasses
import functools
import json
import shutil
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from gdstab.records import ledger
from gdstab.records.files import (
    RunError,
    in_words,
    is_part,
    locked,
    partial_path,
    read_arrays,
    read_clock,
    read_json,
    sync_tree,
    unlock,
    write_arrays,
    write_json,
    writing,
)
from gdstab.records.origin import check_same

T = TypeVar("T")

SCHEMA = 1
"""Version of the layout of `run.json` and `summary.json`."""

CHUNK = 1024
"""Side of a chunk of `result.zarr`."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A run directory; `summary` is None until the run is complete."""

    path: Path
    configuration: dict
    summary: dict | None
    owner: int = 0
    """The process that began the directory; not 0 where several processes have no disk in common."""
    process: int = 0
    """This process among those of the run."""
    begun: int = dataclasses.field(default_factory=lambda: time.time_ns(), compare=False)  # noqa: PLW0108 (tests replace it)
    """When this process took up the run."""

    @property
    def complete(self) -> bool:
        """Whether the run has ended and nothing is left to do."""
        return self.summary is not None

    @property
    def ended(self) -> bool:
        """Whether its directory says so by now."""
        return (self.path / "summary.json").exists()

    def parts_kept(self) -> int:
        """How many finished parts lie in the directory."""
        return len(_part_files(self.path / ledger.PARTS))

    @functools.cached_property
    def dataset(self):
        """The arrays, as an `xarray.Dataset` that reads from disk on demand."""
        import xarray as xr  # noqa: PLC0415 (machines without a network may lack it)

        return xr.open_zarr(_store(self.path / ledger.DATA), consolidated=False, chunks=None)

    def commit(self, number: int, **arrays) -> None:
        """Keep a finished part of the run: one file with a checksum, on the disk when this returns, whole or not there.

        Raises
        ------
        RunError
            If it cannot be written, say because the disk is full; what was committed before stays.
        """
        folder = self.path / ledger.PARTS
        with writing(self.path):
            folder.mkdir(exist_ok=True)
        write_arrays(folder / f"{number:08d}.npz", arrays, (self.process, self.begun, time.time_ns() - self.begun))

    def seconds_before(self) -> float:
        """How long earlier processes worked on what they kept, from when they took up the run to their last part.

        Of several at once, the one that worked longest counts.
        """
        last: dict[tuple[int, int], int] = {}
        for path in _part_files(self.path / ledger.PARTS):
            process, begun, spent = read_clock(path) or (0, self.begun, 0)
            if begun != self.begun:
                last[process, begun] = max(spent, last.get((process, begun), 0))
        totals: dict[int, int] = {}
        for (process, _), spent in last.items():
            totals[process] = totals.get(process, 0) + spent
        return max(totals.values(), default=0) / 1e9

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> Path:
        """Keep a file of the run as `write(file)` writes it: whole, with its checksum in `run.json`; its path.

        Raises
        ------
        RunError
            If a file of that name is there which the run did not write, or it cannot be written.
        """
        return ledger.keep(self.path, name, write)

    def found(self, make: Callable[[dict[str, np.ndarray]], T] = dict) -> "Found[T]":
        """The parts that are there and whole, by number, each read when it is asked for and passed through `make`."""
        return Found(self.path / ledger.PARTS, make)

    def parts(self) -> Iterator[dict[str, np.ndarray]]:
        """The finished parts from number 0 on, up to the first that is missing or damaged; what follows is removed."""
        number = 0
        while (arrays := read_arrays(self.path / ledger.PARTS / f"{number:08d}.npz")) is not None:
            yield arrays
            number += 1
        for path in _part_files(self.path / ledger.PARTS):
            if int(path.stem) >= number and is_part(path):
                path.unlink()

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
        # Strings of one fixed length have no place in the specification of zarr 3.
        words = {name: c.astype(object) for name, c in dataset.coords.items() if c.dtype.kind == "U"}
        dataset = dataset.assign_coords(words)
        partial = partial_path(self.path / ledger.DATA)
        with writing(self.path), contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, partial, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)
            with warnings.catch_warnings():  # consolidated, so that `xarray.open_zarr` reads it without a warning
                warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
                dataset.to_zarr(
                    _store(partial), mode="w", zarr_format=3, consolidated=True, encoding=encoding,
                    write_empty_chunks=True,
                )  # fmt: skip
            sync_tree(partial)
            ledger.keep_tree(self.path, ledger.DATA, partial)

    def finish(self, summary: dict) -> "Record":
        """Write `summary.json`, which makes the run complete, and drop the parts; the complete record."""
        summary = {"schema": SCHEMA, "configuration": self.configuration, **summary}
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        self.write("summary.json", lambda file: file.write(text.encode()))
        ledger.drop_parts(self.path)
        unlock(self.path)
        return dataclasses.replace(self, summary=read_json(self.path / "summary.json"))

    def release(self) -> None:
        """Let other processes take the directory up, whether the run is complete or not."""
        unlock(self.path)

    def retire(self) -> None:
        """Remove a directory that only held the parts of one of several processes, once their run is complete."""
        if self.owner:
            ledger.clear(self.path)
            (self.path / ledger.LEDGER).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it may hold files of somebody else, which stay
                self.path.rmdir()


class Found(Mapping[int, T]):
    """The parts of a run by number; a damaged one counts as missing, so that it is made again."""

    def __init__(self, folder: Path, make: Callable[[dict[str, np.ndarray]], T]):
        self._folder, self._make = folder, make

    def __getitem__(self, number: int) -> T:
        arrays = read_arrays(self._folder / f"{number:08d}.npz")
        if arrays is None:
            raise KeyError(number)
        return self._make(arrays)

    def __iter__(self) -> Iterator[int]:
        return (int(path.stem) for path in _part_files(self._folder) if read_arrays(path) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _part_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.npz")) if path.stem.isdigit()]


def begin(
    path, configuration: dict, *, bytes_needed: int = 0, overwrite: bool = False, resume: bool = False, process: int = 0
) -> Record:
    """Open a directory for a run, or say why not.

    A complete run of the same configuration is returned as it is (`record.complete`), unless `overwrite`. Of several
    processes number 0 begins first. The others then find its directory, or begin one of their own where they do not
    see its disk.

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
    if process and found is not None and found.owner != process:
        overwrite, resume = False, True  # number 0 has just asked
    if found is not None and not overwrite:
        check_same(path, found.configuration, configuration, resume or found.complete)
        with locked(path, process):
            if not process:
                ledger.drop_leftovers(path)
                if found.complete:  # killed after the last file, before its parts were gone
                    ledger.drop_parts(path)
                else:
                    ledger.check_unchanged(path, "move that away, then continue with --resume")
        if found.complete:
            unlock(path)
        return _opened(dataclasses.replace(found, process=process))
    check_room(path, bytes_needed)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with locked(path, process):
            if found is not None:
                ledger.check_unchanged(path, "--overwrite would lose that: move it away, or choose another with --out")
                ledger.clear(path)
            ledger.drop_leftovers(path)
            owner = {"process": process} if process else {}
            write_json(path / ledger.LEDGER, {"schema": SCHEMA, **owner, "configuration": configuration, "files": {}})
    except OSError as error:
        raise RunError(
            f"cannot write to {path}: {error.strerror or error}. Choose another directory with --out."
        ) from error
    return _opened(Record(path, configuration, None, process, process))


_latest: weakref.ref | None = None


def latest() -> Record | None:
    """The run that this process has begun or taken up last, while somebody works on it."""
    return None if _latest is None else _latest()


def _opened(record: Record) -> Record:
    global _latest  # noqa: PLW0603 (who stops the process wants to know it)
    _latest = weakref.ref(record)
    return record


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
            f"the results may take {in_words(bytes_needed)}, but {path} has {in_words(free)} left: lower the "
            "resolution, or choose another disk with --out."
        )


def _existing(path: Path) -> Record | None:
    """The run in a directory; None where there is nothing; an error where there is something else."""
    try:
        if not path.exists() or (path.is_dir() and set(path.iterdir()) <= ledger.leftovers(path)):
            return None
        if not path.is_dir() or not (path / ledger.LEDGER).is_file():
            what = "holds files, but no run" if path.is_dir() else "is a file"
            raise RunError(f"{path} {what}: choose an empty or a new directory with --out.")
        begun = read_json(path / ledger.LEDGER)
        configuration, owner = begun["configuration"], begun.get("process", 0)
        summary = read_json(path / "summary.json") if (path / "summary.json").exists() else None
    except OSError as error:
        raise RunError(f"cannot use {path}: {error.strerror or error}. Choose another directory with --out.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} holds a damaged run.json or summary.json: remove it, or choose another.") from error
    return Record(path, configuration, summary, owner)


def _store(path: Path):
    """A zarr store in a folder of whatever name: what looks like an address, or begins with ~, is a name here."""
    from zarr.storage import LocalStore  # noqa: PLC0415 (machines without a network may lack it)

    return LocalStore(path.absolute())
