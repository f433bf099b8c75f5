"""What a command leaves when it cannot go on: one line, and nothing on the disk that was not there before."""

import contextlib
import dataclasses
import re
from pathlib import Path

_asked: dict = {}
"""Of the command that runs: its options, and the folders that were not there when it began, the innermost first."""

_UNITS = {"b": 1, "bytes": 1} | {
    f"{prefix}{end}": base**power
    for end, base in (("b", 1000), ("ib", 1024)) for power, prefix in enumerate("kmgtp", 1)
}  # fmt: skip


def begin(options) -> None:
    """Remember what a command was asked for."""
    out = getattr(options, "out", None)
    missing = []
    while out is not None and not out.exists() and out != out.parent:
        missing.append(out)
        out = out.parent
    _asked.update(options=options, missing=missing)


def tidy() -> None:
    """Remove the directory that the command made, if it holds no more than what was asked for."""
    folders: list[Path] = _asked.get("missing", [])
    with contextlib.suppress(OSError):
        if folders and [path.name for path in folders[0].iterdir()] == ["run.json"]:
            (folders[0] / "run.json").unlink()
        for folder in folders:
            folder.rmdir()  # holds what somebody else wrote meanwhile, or is gone


def in_one_line(error: BaseException) -> str | None:
    """What to say of an error; None if it is none that a user's input explains."""
    said = " ".join(str(error).split()) or type(error).__name__
    memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said
    if isinstance(error, RuntimeError) and not memory:
        return None
    return _too_large(said) if memory else said


def _too_large(said: str) -> str:
    """How much was asked for, and which options ask for more than they do by default."""
    found = re.search(r"(?:allocating|allocate) ([\d.]+) ?([A-Za-z]+)", said)
    size = float(found[1]) * _UNITS.get(found[2].lower(), 1) if found else 0
    unit, name = next(((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size >= u), (1, "bytes"))
    much = f"{size / unit:.3g} {name} at once" if found else said
    raised = _raised(_asked.get("options"))
    return f"out of memory: it asked for {much}; lower {', '.join(raised) or 'its sizes'}"


def _raised(options) -> list[str]:
    """Whole numbers above their defaults, the most raised first; all of them if none is."""
    if options is None:
        return []
    sizes = {}
    for field in dataclasses.fields(options):
        value, usual = getattr(options, field.name), field.default
        pair = (value, usual) if isinstance(value, tuple) else ((value,), (usual,))
        if pair[0] and all(type(number) is int for part in pair for number in part):
            sizes["--" + field.name.replace("_", "-")] = max(pair[0]) / max(*pair[1], 1)
    ordered = sorted((name for name in sizes if sizes[name] > 1 and name != "--seed"), key=lambda name: -sizes[name])
    return ordered[:3]
