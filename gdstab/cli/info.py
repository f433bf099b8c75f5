"""`gdstab info`."""

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from typing import Literal

from gdstab.cli import process
from gdstab.studies.tables import table

_PACKAGES = ("jaxlib", "equinox", "optax", "xarray", "zarr", "tyro", "matplotlib")


@dataclasses.dataclass(frozen=True)
class Info:
    """Devices, versions, precision and cores of a run."""

    precision: Literal[32, 64] = 64
    """bits of a number"""


def main(arguments: Sequence[str]) -> int:
    """Print what a run would use."""
    precision = process.parse(Info, arguments, "info").precision
    process.configure(precision)
    import jax  # noqa: PLC0415 (configured first)

    from gdstab import records  # noqa: PLC0415

    found = records.provenance(f"float{precision}")
    found.pop("seed")
    found.pop("finished")
    found["compilation_cache"] = jax.config.jax_compilation_cache_dir
    found |= {name: _version(name) for name in _PACKAGES}
    print(table(found.items()))
    if found["platform"] == "tpu":
        print("\nOn a TPU use --precision 32; non-symmetric eigenvalues are computed on the host.")
    return 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
