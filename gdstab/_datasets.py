"""Results as datasets: a class of results says what its axes are called; all else is done here, the same for each."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from gdstab._results import frame, strings, versions, words

_ESCAPED = str.maketrans({"%": "%25", "/": "%2F", "\\": "%5C"})  # a slash makes a group, where a store loses the array
_LONGEST = 120  # bytes; a store keeps each array, and each of its axes, under a file name of at most 255
_INT32 = np.iinfo(np.int32)
Axes = str | tuple[str, ...]
LANES = ("step_size", "point")
"""Axes of an ensemble: both, or points alone where there is one step size, or one for each point."""
Result = TypeVar("Result")


def recorded(
    axes: Mapping[str, Axes],
    *,
    coords: Mapping[str, str] | None = None,
    attrs: tuple[str, ...] = (),
    codes: Mapping[str, Any] | None = None,
    rows: Axes | None = None,
) -> Callable[[type[Result]], type[Result]]:
    """Give a class of results `to_xarray`, `to_dataframe` and `origin`: a decorator.

    Parameters
    ----------
    axes
        By field or property, what the axes of its arrays are called; those behind them are numbered, those in front,
        which `vmap` has made, are lanes. A row of the frame is a place along the axes of the first field. `LANES` are
        as many as that field has.
    coords
        Coordinates: by the name of an axis the field that holds its values.
    attrs
        Fields and properties that are numbers or words.
    codes
        By field the enumeration whose values it holds, or the property that names them from 0 on.
    rows
        Axes of the frame, where they are others than those of the first field.

    Examples
    --------
    >>> from typing import NamedTuple
    >>> @recorded({"height": "place"}, coords={"place": "x"}, attrs=("unit",))
    ... class Profile(NamedTuple):
    ...     x: np.ndarray
    ...     height: np.ndarray
    ...     unit: str
    >>> found = Profile(np.array([0.5, 1.0]), np.array([2.0, 3.0]), "m")
    >>> found.to_xarray().attrs["unit"], found.to_dataframe().shape
    ('m', (2, 2))
    """
    axes, coords, codes = {name: _tuple(dims) for name, dims in axes.items()}, coords or {}, codes or {}
    first = next(iter(axes.values()))

    def to_xarray(self):
        return _dataset(self, axes, coords, attrs, codes)

    def to_dataframe(self):
        dataset = self.to_xarray()
        dims = next(iter(dataset.data_vars.values())).dims
        return frame(dataset, dims if rows is None else (*dims[: len(dims) - len(first)], *_tuple(rows)))

    named = sorted({name for dims in axes.values() for name in dims})
    to_xarray.__doc__ = f"As an `xarray.Dataset` over {', '.join(named)}; its attributes say where it comes from."
    to_dataframe.__doc__ = "As a `pandas.DataFrame`, one row for each place along the axes of its first variable."

    def equip(cls):
        if issubclass(cls, tuple):  # one with room for `origin`, and equal to the plain tuple
            cls = type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "__module__": cls.__module__})
        for function in (to_xarray, to_dataframe):
            function.__module__, function.__qualname__ = cls.__module__, f"{cls.__qualname__}.{function.__name__}"
            setattr(cls, function.__name__, function)
        if "origin" not in getattr(cls, "__dataclass_fields__", {}):
            cls.origin = None  # what it was made with, in words, where it comes from a function and not from `vmap`
        return cls

    return equip


def attributes(result: Any, **more: Any) -> dict:
    """What a result says of where it comes from, and more, as any store takes it.

    Truth values become 0 and 1, numbers beyond 32 bits floating-point ones, sequences of words one line, dictionaries
    an attribute an entry; what is None is left out.
    """
    told = versions() | (getattr(result, "origin", None) or {})
    return storable(more) | told


def storable(attrs: Mapping[str, Any]) -> dict:
    """Attributes as any store takes them; see `attributes`.

    >>> storable({"ok": True, "big": 2**40, "box": ((0, 1), (2, 3)), "count": {"a": 1}, "none": None})
    {'ok': 1, 'big': 1099511627776.0, 'box': [0, 1, 2, 3], 'count_a': 1}
    """
    found = {}
    for name, value in attrs.items():
        if isinstance(value, Mapping):
            found |= storable({f"{name}_{key}": entry for key, entry in value.items()})
        elif value is not None:
            found[name] = _storable(value)
    return found


def _storable(value):
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple | list) and any(isinstance(entry, str) for entry in value):
        return ", ".join(map(str, value))
    if not isinstance(value, tuple | list | np.ndarray | jax.Array | np.generic | int | float):
        return words(value)
    array = np.asarray(value).ravel()
    if array.dtype == bool:
        array = array.astype(np.int32)
    elif np.issubdtype(array.dtype, np.integer) and array.size and not _fits(array):
        array = array.astype(float)
    return array[0].item() if np.ndim(value) == 0 else array.tolist()


def _fits(array: np.ndarray) -> bool:
    return bool(array.min() >= _INT32.min and array.max() <= _INT32.max)


def compact(dataset):
    """The dataset, ready for stores without integers of 64 bits: such that fit go as 32, others as floating-point ones.

    The arrays are what they were; `encoding` says how a store writes them.
    """
    for variable in dataset.variables.values():
        wide = variable.dtype.kind in "iu" and variable.dtype.itemsize >= 4
        if wide and variable.size and not _fits(variable.values):
            variable.encoding["dtype"] = "float64"
    return dataset


def flags(meaning: Any) -> dict:
    """Attributes of a variable that holds codes: what they mean, by the conventions of climate and forecast data."""
    pairs = [(int(code), code.name.lower()) for code in meaning] if isinstance(meaning, type) else [*enumerate(meaning)]
    said = " ".join(name.replace(" ", "") for _, name in pairs)
    return {"flag_values": [code for code, _ in pairs], "flag_meanings": said}


def variables(name: str, value: Any, dims: tuple[str, ...], said: Mapping | None = None) -> dict[str, tuple]:
    """The variables of a field: one for an array, one a leaf for other pytrees, two for complex numbers."""
    found: dict[str, tuple] = {}
    for leaf_name, path, leaf in named_leaves(value, name):
        array = np.asarray(leaf)
        all_dims = (*dims[: array.ndim], *(f"{leaf_name}_axis{i}" for i in range(array.ndim - len(dims))))
        attrs = {**(said or {}), **({} if path == name else {"path": path})}
        if np.iscomplexobj(array):
            found[f"{leaf_name}_real"] = all_dims, array.real, attrs
            found[f"{leaf_name}_imag"] = all_dims, array.imag, attrs
        else:
            found[leaf_name] = all_dims, array, attrs
    return found


def named_leaves(tree: Any, prefix: str) -> list[tuple[str, str, Any]]:
    """Name, path and leaf of every leaf: no two names are the same, and `urllib.parse.unquote` gives the path back.

    What is too long for the name of a file ends in a checksum instead; the path is whole.

    Examples
    --------
    >>> tree = {"mlp/~/linear": {"w": 1.0}, "a.b": 2.0, "a": {"b": 3.0}, "": 4.0, ".": 5.0}
    >>> for name, path, _ in named_leaves(tree, "theta"):
    ...     print(name)
    theta['']
    theta['.']
    theta['a']['b']
    theta['a.b']
    theta['mlp%2F~%2Flinear']['w']
    """
    found: dict[str, tuple[str, Any]] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = prefix + jax.tree_util.keystr(keys)
        name = path.translate(_ESCAPED)
        if len(name.encode()) > _LONGEST:
            checksum = hashlib.sha256(path.encode()).hexdigest()[:16]
            name = f"{name.encode()[: _LONGEST - 17].decode(errors='ignore')}~{checksum}"
        while name in found:  # keys of a node of the user's own that look alike
            name = f"{name}~{len(found)}"
        found[name] = path, leaf
    return [(name, path, leaf) for name, (path, leaf) in found.items()]


def _dataset(result, axes, coords, attrs, codes):
    import xarray as xr  # noqa: PLC0415 (only needed here)

    more = {name: getattr(result, name) for name in attrs}
    given = {name: value for name in axes if (value := getattr(result, name)) is not None}
    extra = next(np.ndim(value) - len(axes[name]) for name, value in given.items() if hasattr(value, "ndim"))
    lead, data = ("lane",) if extra == 1 else tuple(f"lane{i}" for i in range(extra)), {}
    for name, value in given.items():
        dims = (*lead, *(axes[name][-extra:] if extra < 0 and axes[name] == LANES else axes[name]))
        code = codes.get(name)
        named = getattr(result, code) if isinstance(code, str) else code
        if isinstance(code, str):
            more[code] = ", ".join(f"{number} {word}" for number, word in enumerate(named)) or None
        data |= variables(name, value, dims, None if named is None else flags(named))
    there = {axis for dims, *_ in data.values() for axis in dims}
    found = {}
    for axis, name in coords.items():
        values = getattr(result, name)
        if axis in there and np.ndim(values) == 1:
            found[axis] = strings(values) if isinstance(values, tuple) else np.asarray(values)
        elif values is not None and np.ndim(values) == 0:
            more[axis] = values
        elif values is not None and np.size(values) == 1:
            more[axis] = np.asarray(values).item()
        elif values is not None and axis == LANES[0]:
            found[axis] = LANES[1], np.asarray(values)
    dtype = next((value.dtype for _, value, _ in data.values() if value.dtype.kind == "f"), None)
    told = attributes(result, **more, dtype=None if dtype is None else str(dtype))
    return compact(xr.Dataset(data, found, told))


def _tuple(axes: Axes) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes
