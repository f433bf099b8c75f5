"""Where a result comes from: versions, devices, precision, seed; and whether it is of the run that is asked for."""

import datetime
import platform
from pathlib import Path

import jax
import numpy as np

import gdstab
from gdstab._guard import cores
from gdstab.records.files import RunError


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
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "seed": seed,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


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
