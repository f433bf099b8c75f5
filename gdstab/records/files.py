"""Files that are whole or not there: written under another name, flushed to the disk, renamed; read with a checksum."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DIGEST = "sha256"  # the member of a file of arrays that holds the checksum of the others
_CLOCK = "clock"  # the member that says when it was written: see `read_clock`


class RunError(ValueError):
    """A run directory that cannot be used as asked; the message says what to do."""


_locks: dict[tuple[Path, int], int] = {}
"""Directories that this process writes, with the descriptor that holds the lock; it goes with the process."""


def lock(path: Path, process: int = 0) -> None:
    """Keep other processes of this machine from writing a run's directory until `unlock`, or the end of this one.

    Of the processes of one run the first holds the lock for all.

    Raises
    ------
    RunError
        If another process writes it.
    """
    key = (path.absolute(), os.getpid())
    if process or key in _locks or fcntl is None:
        return
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise RunError(
            f"{path} is being written by another process: wait for that, or choose another directory with --out."
        ) from None
    except OSError:  # a disk that knows no locks
        os.close(held)
        return
    _locks[key] = held


@contextlib.contextmanager
def locked(path: Path, process: int = 0) -> Iterator[None]:
    """`lock`, kept on the way out but where something fails."""
    lock(path, process)
    try:
        yield
    except BaseException:
        unlock(path)
        raise


def unlock(path: Path) -> None:
    """Let others write the directory."""
    held = _locks.pop((path.absolute(), os.getpid()), None)
    if held is not None:
        os.close(held)


@contextlib.contextmanager
def writing(path) -> Iterator[None]:
    """Whatever the system has against writing at `path`, as a `RunError` that says how the run can go on.

    Examples
    --------
    >>> with writing("runs/a"):
    ...     raise OSError(errno.ENOSPC, "No space left on device")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    gdstab.records.files.RunError: there is no room to write at runs/a (No space left on device; ... continue with ...
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_ROOM:
            free = in_words(shutil.disk_usage(_existing_parent(path)).free)
            raise RunError(
                f"there is no room to write at {path} ({reason}; the disk has {free} left). What was finished before "
                "is kept: free some space, or raise the quota or the limit on the size of files, then continue with "
                "--resume."
            ) from error
        raise RunError(
            f"cannot write at {path} ({reason}). What was finished before is kept: put that right, then continue with "
            "--resume."
        ) from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Make `path` hold what `write(file)` writes, all of it and for good, or leave it as it was."""
    partial = partial_path(path)
    with writing(path.parent):
        try:
            with open(partial, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_directory(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def partial_path(path: Path) -> Path:
    """Where this process writes what will be at `path` once it is whole."""
    return path.with_name(f"{path.name}.{os.getpid()}.gdstab")


def write_json(path: Path, content: dict) -> None:
    """JSON for people: indented, and no NaN, which JSON does not have."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict:
    """The content of a file that `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_arrays(path: Path, arrays: Mapping[str, object], clock: tuple[int, ...] = ()) -> None:
    """Keep arrays in one `.npz` file, with a checksum over all that reading them gives, and what `read_clock` gives."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    more = {_DIGEST: _digest(arrays), _CLOCK: np.array(clock, np.int64)}
    write_whole(path, lambda file: np.savez(file, **arrays, **more))


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file that `write_arrays` wrote; None if a single byte of them is not as it was, or none is there.

    The archive's own CRCs do not cover its names, and are not looked at where a damaged header asks for fewer bytes.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except Exception:  # there is no end to what damaged bytes provoke
        return None
    arrays.pop(_CLOCK, None)
    digest = arrays.pop(_DIGEST, None)
    return arrays if digest is not None and np.array_equal(digest, _digest(arrays)) else None


def read_clock(path: Path) -> list[int] | None:
    """The clock of a file that `write_arrays` wrote; None if it has none."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive[_CLOCK].tolist() or None
    except Exception:  # as above
        return None


def is_part(path: Path) -> bool:
    """Whether a file was written by `write_arrays` under a number, as the names in its archive tell."""
    try:
        return path.stem.isdigit() and path.suffix == ".npz" and f"{_DIGEST}.npy" in zipfile.ZipFile(path).namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a loss of power, where the system can do that."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(path: Path) -> None:
    """Flush all files and folders below a folder to the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            with open(Path(folder) / name, "rb+") as file:
                os.fsync(file.fileno())
        sync_directory(Path(folder))


def in_words(size: int) -> str:
    """A number of bytes for people.

    >>> in_words(5_000_000)
    '5 MB'
    """
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


def _digest(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """SHA-256 of names, dtypes, shapes and bytes, [32]."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        total.update(array.data.cast("B") if array.size else b"")
    return np.frombuffer(total.digest(), np.uint8)


def _existing_parent(path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
