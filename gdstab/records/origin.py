"""Where a result comes from: versions, devices, precision, seed."""

import datetime
import platform

import jax
import numpy as np

import gdstab
from gdstab._guard import cores


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
