"""What a run has written into its directory: every file with its checksum, listed in `run.json` before it is there.

So that much can be removed again and no more. A file that is not listed, or is not what was listed, is somebody else's.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from gdstab.records.files import RunError, is_part, partial_path, read_json, sync_directory, write_json, writing

LEDGER = "run.json"
PARTS = "parts"
DATA = "result.zarr"
_USUAL = (DATA, "summary.json", "figure.png", "figure.pdf")  # what nearly every run will write
_LEFTOVER = re.compile(r".+\.\d+\.gdstab|(run|summary)\.json\.\d+\.tmp|result\.zarr\.tmp")
"""Names that only a process leaves that was killed while it wrote; the last two are those of earlier versions."""


def keep(folder: Path, name: str, write: Callable[[BinaryIO], object]) -> Path:
    """Make the file `name` of a run hold what `write(file)` writes, and list it; whole, or as it was.

    Raises
    ------
    RunError
        If a file of that name is there which the run did not write, or it cannot be written.
    """
    path, partial = folder / name, partial_path(folder / name)
    _refuse(folder, strangers(folder, [name]), "move it away, then continue with --resume")
    with writing(folder), contextlib.ExitStack() as stack:
        stack.callback(partial.unlink, missing_ok=True)
        with open(partial, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        sums = {checksum(file) for file in (path, partial) if file.exists()}  # both count until the new one is there
        _note(folder, {name: " ".join(sorted(sums))})
        os.replace(partial, path)
        sync_directory(folder)
    return path


def keep_tree(folder: Path, name: str, partial: Path) -> None:
    """Give a finished folder its name, in place of the one that the run wrote before, and list all files in it."""
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    _refuse(folder, strangers(folder, [name]), "move it away, then continue with --resume")
    remove(folder, [old for old in listed(folder) if old.startswith(f"{name}/")])
    with writing(folder):
        _note(folder, {f"{name}/{path.relative_to(partial).as_posix()}": checksum(path) for path in files})
        os.replace(partial, folder / name)
        sync_directory(folder)


def listed(folder: Path) -> dict[str, str]:
    """The files that a run has listed, with their checksums; of a run that was begun before there were lists, none."""
    return read_json(folder / LEDGER).get("files", {})


def strangers(folder: Path, names: Iterable[str]) -> list[str]:
    """Which files of these names, or in folders of these names, the run did not write, or not as they are now."""
    files, found = listed(folder), []
    for top in names:
        path = folder / top
        inside = [path] if path.is_symlink() or not path.is_dir() else sorted(path.rglob("*"))
        for entry in inside:
            name = entry.relative_to(folder).as_posix()
            if entry.is_symlink() or (entry.is_file() and checksum(entry) not in files.get(name, "").split()):
                found.append(name)
    return found


def check_unchanged(folder: Path, advice: str) -> None:
    """Refuse to go on, or to replace a run, where its folders or names hold what it did not write."""
    if "files" in read_json(folder / LEDGER):
        tops = [name.partition("/")[0] for name in listed(folder)]
        _refuse(folder, strangers(folder, dict.fromkeys([*tops, *_USUAL])), advice)


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files of a run, and the folders that this leaves empty."""
    names = list(names)
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for place in sorted({parent for name in names for parent in Path(name).parents if parent.name}, reverse=True):
        with contextlib.suppress(OSError):
            (folder / place).rmdir()


def clear(folder: Path) -> None:
    """Remove what a run wrote and nothing else, its summary first; what says that it is a run stays."""
    names = [name for name in listed(folder) or _written_before(folder) if name != "summary.json"]
    remove(folder, ["summary.json", *names])
    drop_parts(folder)
    drop_leftovers(folder)


def drop_parts(folder: Path) -> None:
    """Remove the finished parts of a run, and what a killed process left of one."""
    place = folder / PARTS
    for path in place.glob("*"):
        if is_part(path) or _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or holds files of somebody else
        place.rmdir()


def leftovers(folder: Path) -> set[Path]:
    """What processes left that were killed while they wrote."""
    return {path for path in folder.iterdir() if _LEFTOVER.fullmatch(path.name)}


def drop_leftovers(folder: Path) -> None:
    """Remove them."""
    for path in leftovers(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(folder: Path, files: Mapping[str, str]) -> None:
    head = read_json(folder / LEDGER)
    known = {name: sums for name, sums in head.get("files", {}).items() if (folder / name).exists()}
    write_json(folder / LEDGER, {**head, "files": {**known, **files}})


def _written_before(folder: Path) -> list[str]:
    """What a run wrote that was begun before there were lists: by its summary, so nothing but data if it has none."""
    data = [path.relative_to(folder).as_posix() for path in (folder / DATA).rglob("*") if path.is_file()]
    if not (folder / "summary.json").is_file():
        return data
    summary = read_json(folder / "summary.json")
    pictures = ["figure", *summary.get("figures", [])]
    if summary.get("configuration", {}).get("study") == "multipliers":
        pictures.append("orbit")
    return data + [f"{name}.{ending}" for name in pictures for ending in ("png", "pdf")]


def _refuse(folder: Path, names: list[str], advice: str) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise RunError(
            f"{folder} holds files that the run did not write, or that were changed since: {', '.join(names[:3])}"
            f"{more}; {advice}."
        )
