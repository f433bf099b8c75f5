"""gdstab: a laboratory for gradient descent as a discrete dynamical system.

Losses and updates make orbits; ensembles run many at once; outcomes say how each one ended; curvature gives
stability; minima is the set that is stable or not; basins measure; theory says what must come out; figures show.

Modules are imported on first use, so that `import gdstab` is instant and pulls in neither JAX nor matplotlib.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "basins",
    "bifurcation",
    "boundaries",
    "claims",
    "curvature",
    "data",
    "ensembles",
    "estimators",
    "figures",
    "flow",
    "losses",
    "lyapunov",
    "minima",
    "orbits",
    "outcomes",
    "records",
    "sampling",
    "stability",
    "studies",
    "testing",
    "theory",
    "updates",
)
_NAMES = {
    "Outcome": "outcomes",
    "StoppingRule": "outcomes",
    "UpdateRule": "updates",
    "from_optax": "updates",
    "gradient_descent": "updates",
    "rollout": "orbits",
    "run": "ensembles",
    "settle": "orbits",
}

__all__ = sorted([*_MODULES, *_NAMES])  # noqa: PLE0605 (each is written once)


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"gdstab.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"gdstab.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'gdstab' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return [*__all__, "__version__"]
