"""What every result says of where it comes from, and its frame: one row a lane, a cell, or a step size."""

import dataclasses
import functools
import importlib.metadata
import itertools
import re
import types
from typing import Any

import equinox as eqx
import jax
import numpy as np

_PACKAGES = ("jax", "jaxlib", "optax", "equinox", "diffrax", "numpy")
_LONGEST = 400
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # another one in every process


@functools.cache
def versions() -> dict[str, str]:
    """Of gdstab and of what it computes with, as attributes of a result.

    >>> sorted(versions())[:3]
    ['diffrax_version', 'equinox_version', 'gdstab_version']
    """
    import gdstab  # noqa: PLC0415 (it is only then complete)

    found = {"gdstab_version": gdstab.__version__}
    for name in _PACKAGES:
        try:
            found[f"{name}_version"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[f"{name}_version"] = "not installed"
    return found


def origin(
    rule: Any = None, loss: Any = None, stopping: Any = None, source: Any = None, dtype: Any = None, seed: Any = None
) -> dict:
    """Attributes of a result, words and numbers only: rule, loss, stopping rule, source, seed, dtype, and versions.

    The seed is that of a key, or of the source if it has one.

    >>> origin(loss=abs, dtype="float32")["loss"], origin(seed=jax.random.key(7))["seed"]
    ('abs', 7)
    """
    given = {"rule": rule, "loss": loss, "stopping": stopping, "source": source}
    told = {name: words(value) for name, value in given.items() if value is not None}
    seed = seed_of(next((getattr(source, name) for name in ("key", "seed") if hasattr(source, name)), seed))
    told |= {} if seed is None else {"seed": seed}
    return told | ({} if dtype is None else {"dtype": str(np.dtype(dtype))}) | versions()


_TOLD = ("rule", "loss", "stopping", "source", "seed")


def tell(result: Any, given: dict) -> Any:
    """Have a result say what it was made with, by the arguments of the function that made it; the result.

    Tuples and lists of results are told each. `vmap` and `jit` make results anew, and those say nothing.
    """
    if type(result) in (tuple, list):
        for one in result:
            tell(one, given)
    elif getattr(type(result), "origin", 0) is None and result.origin is None:
        told = {name: given[name] for name in _TOLD if given.get(name) is not None}
        if "seed" not in told and given.get("key") is not None:
            told["seed"] = given["key"]
        object.__setattr__(result, "origin", origin(**told))  # results are frozen, but this is no field of theirs
    return result


def seed_of(seed: Any) -> int | str | None:
    """The number that a key was made of, by `jax.random.key`; of other keys their words.

    >>> seed_of(jax.random.key(2**31 + 5))
    '2147483653'
    """
    if seed is None or isinstance(seed, jax.core.Tracer):
        return None
    if isinstance(seed, jax.Array | np.ndarray):
        typed = jax.dtypes.issubdtype(seed.dtype, jax.dtypes.prng_key)
        data = np.asarray(jax.random.key_data(seed) if typed else seed, np.uint64).ravel()
        if data.size != 2:
            return " ".join(map(str, data.tolist()))
        seed = (int(data[0]) << 32) | int(data[1])
    return int(seed) if abs(seed) < 2**31 else str(seed)  # what stores with numbers of 32 bits keep


def words(value: Any) -> str:
    """A rule, a loss or any other object in one line: names and numbers, of arrays their shapes.

    >>> words(functools.partial(pow, exp=2))
    'pow(exp=2)'
    """
    text = _words(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _words(value: Any) -> str:
    say = next((say for kinds, say in _SAID if isinstance(value, kinds)), _anything)
    return say(value)


def _anything(value) -> str:
    return _ADDRESS.sub("", " ".join(repr(value).split()))


def _sequence(value) -> str:
    if callable(getattr(value, "step", None)):  # an update rule, by what it does
        name = _words(value.step)
        return {"_descend": "gradient_descent()"}.get(name, name.removeprefix("_"))
    return f"({', '.join(map(_words, value))})" if type(value) in (tuple, list) else _anything(value)


def _partial(value) -> str:
    given = [_words(arg) for arg in value.args]
    given += [f"{name}={_words(arg)}" for name, arg in value.keywords.items()]
    name = _words(value.func).removeprefix("step_optax")
    return f"{name or 'from_optax'}({', '.join(given)})"


def _function(value) -> str:
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False) if hasattr(value, "__code__") else ()
    held = [f"{name}={_words(cell.cell_contents)}" for name, cell in cells if _is_plain(cell)]
    name = getattr(value, "__qualname__", repr(value)).replace("<locals>.", "").replace("<lambda>", "lambda")
    return f"{name}({', '.join(held)})" if held else name


def _array(value) -> str:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key) and not value.ndim:
        return f"key({seed_of(value)})"
    known = value.ndim == 0 and not isinstance(value, jax.core.Tracer)
    return repr(value.item()) if known else f"{value.dtype}{list(value.shape)}"


def _module(value) -> str:
    fields = [f"{field.name}={_words(getattr(value, field.name))}" for field in dataclasses.fields(value)]
    return f"{type(value).__name__}({', '.join(fields)})"


def _dict(value) -> str:
    return "{" + ", ".join(f"{key!r}: {_words(entry)}" for key, entry in value.items()) + "}"


_SAID = (
    (functools.partial, _partial),
    (types.FunctionType | types.BuiltinFunctionType | types.MethodType, _function),
    (np.ndarray | jax.Array, _array),
    (eqx.Module, _module),
    (dict, _dict),
    (tuple | list, _sequence),
)


def _is_plain(cell) -> bool:
    return isinstance(cell.cell_contents, str | int | float | tuple) if cell != types.CellType() else False


def strings(names) -> np.ndarray:
    """Names as a coordinate that every store takes without a warning: strings of any length."""
    return np.array(list(names), dtype=object)


def frame(dataset, dims: tuple[str, ...]):
    """A `pandas.DataFrame` with one row for each place along `dims`.

    Variables that have none of these dimensions are left out; those with more become several columns, `theta[0]`,
    `theta[1]`, and so on.
    """
    import xarray as xr  # noqa: PLC0415 (only needed here)

    shape = tuple(dataset.sizes[name] for name in dims)
    columns = {}
    for name in dims:
        values = dataset[name].values if name in dataset.coords else np.arange(dataset.sizes[name])
        axis = [-1 if one == name else 1 for one in dims]
        columns[name] = np.broadcast_to(values.reshape(axis), shape).ravel()
    for name, variable in dataset.data_vars.items():
        if dims and not set(variable.dims) & set(dims):
            continue
        more = [one for one in variable.dims if one not in dims]
        lacking = [one for one in dims if one not in variable.dims]
        whole = variable.expand_dims({one: dataset.sizes[one] for one in lacking}).transpose(*dims, *more)
        values = whole.values.reshape(int(np.prod(shape)), -1)
        if not more:
            columns[name] = values[:, 0]
            continue
        places = [dataset[one].values if one in dataset.coords else range(dataset.sizes[one]) for one in more]
        for number, place in enumerate(itertools.product(*places)):
            columns[f"{name}[{','.join(map(str, place))}]"] = values[:, number]
    return xr.Dataset({name: ("row", values) for name, values in columns.items()}).to_dataframe().reset_index(drop=True)
