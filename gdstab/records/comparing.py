"""Whether a directory's run is the one that is asked for: what differs, in words."""

from pathlib import Path

from gdstab.records.files import RunError


def check_same(path: Path, old: dict, new: dict, resume: bool) -> None:
    """Refuse a run of another study or configuration, and, unless it is to be resumed, an interrupted one.

    Raises
    ------
    RunError
        That names what differs, and what to do.
    """
    theirs, ours = old.get("study"), new.get("study")
    if theirs != ours:
        raise RunError(
            f"{path} holds a run of `{command(theirs)}`. Choose another directory with --out, or replace the run "
            "with --overwrite."
        )
    keys = differing_keys(old, new)
    if keys:
        raise RunError(
            f"{path} holds a run of another configuration; it differs in {', '.join(keys)}. Choose another "
            "directory with --out, or replace the run with --overwrite."
        )
    if not resume:
        raise RunError(
            f"{path} holds an interrupted run of this configuration: continue it with --resume, or begin again "
            "with --overwrite."
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


def command(study: str | None) -> str:
    """What wrote a run, from the name of its options.

    >>> command("criticalmap"), command("figurea1a")
    ('gdstab critical-map', 'gdstab reproduce A.1a')
    """
    if study is None:
        return "another program"
    if study.startswith("figure"):
        return f"gdstab reproduce {study[6:7].upper()}.{study[7:]}"
    return f"gdstab {'critical-map' if study == 'criticalmap' else study}"
