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
    return _too_large(said) if memory else _by_option(said)


def _by_option(said: str) -> str:
    """A refusal that begins with the name of a field, under the name of the option."""
    found = re.match(r"`?([a-z_0-9]+)`?(?=[: ])", said)
    for prefix, fields in _fields():
        if found and found[1] in fields and said[found.end(1)] in "`:":
            return f"--{prefix}{found[1].replace('_', '-')}{said[found.end() :]}"
    return said


def _fields() -> list[tuple[str, dict[str, tuple]]]:
    """Of the options and of their loss: prefix, and value and default of each field."""
    options = _asked.get("options")
    levels = [("", options), ("loss.", getattr(options, "loss", None))]
    return [
        (prefix, {field.name: (getattr(each, field.name), field.default) for field in dataclasses.fields(each)})
        for prefix, each in levels if dataclasses.is_dataclass(each)
    ]  # fmt: skip


def _too_large(said: str) -> str:
    """How much was asked for, and which options ask for more than they do by default."""
    found = re.search(r"(?:allocating|allocate) ([\d.]+) ?([A-Za-z]+)", said)
    size = float(found[1]) * _UNITS.get(found[2].lower(), 1) if found else 0
    unit, name = next(((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size >= u), (1, "bytes"))
    much = f"{size / unit:.3g} {name} at once" if found else said
    return f"out of memory: it asked for {much}; lower {', '.join(_raised()) or 'its sizes'}"


def _raised() -> list[str]:
    """Whole numbers above their defaults, the most raised first."""
    sizes = {}
    for prefix, fields in _fields():
        for name, pair in fields.items():
            given, usual = (part if isinstance(part, tuple) else (part,) for part in pair)
            if given and all(type(number) is int for number in (*given, *usual)) and name != "seed":
                sizes[f"--{prefix}{name.replace('_', '-')}"] = max(given) / max([*usual, 1])
    return sorted((name for name in sizes if sizes[name] > 1), key=lambda name: -sizes[name])[:3]
