"""`gdstab info`."""

import argparse
from collections.abc import Sequence
from importlib import metadata

from gdstab.cli import process, report

_PACKAGES = ("jaxlib", "equinox", "optax", "xarray", "zarr", "tyro", "matplotlib")


def main(arguments: Sequence[str]) -> int:
    """Print what a run would use."""
    parser = argparse.ArgumentParser("gdstab info", description="Devices, versions, precision and cores of a run.")
    parser.add_argument("--precision", type=int, choices=(32, 64), default=64, help="bits of a number (default: 64)")
    precision = parser.parse_args(list(arguments)).precision
    process.configure(precision)
    import jax  # noqa: PLC0415 (configured first)

    from gdstab import records  # noqa: PLC0415

    found = records.provenance(f"float{precision}")
    found.pop("seed")
    found.pop("finished")
    found["compilation_cache"] = jax.config.jax_compilation_cache_dir
    found |= {name: _version(name) for name in _PACKAGES}
    print(report.table(found.items()))
    if found["platform"] == "tpu":
        print("\nOn a TPU use --precision 32; non-symmetric eigenvalues are computed on the host.")
    return 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
