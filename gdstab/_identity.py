"""What a callable is to a compiler: by identity where it may change, by value elsewhere, and without holding any of it.

A compiled program may serve again if nothing that its trace has read is another. So functions, arrays and objects are
told apart by a number that is given once and never again, not by `==`, which an object may define as it likes; and what
can be changed in place (attributes, closures, lists, NumPy arrays) is looked at each time.
"""

import atexit
import dis
import itertools
import types
import weakref
import zlib
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.tree_util import default_registry

_LOOKS = 4096
"""Objects that are looked into for one callable; what lies beyond is told by identity alone."""
_LARGE = 2**20
"""Bytes of an array from which on its sum and a sample of it stand for all of its entries."""
_LIBRARIES = frozenset({"builtins", "diffrax", "equinox", "functools", "gdstab", "jax", "numpy", "optax", "scipy"})
"""Packages whose functions are taken to read no global that changes."""
_BY_VALUE = bool, int, str, bytes, complex, type(None), type(Ellipsis), np.dtype


class _Number:
    """The number of an object, and whom to tell when the object is gone."""

    def __init__(self, thing: Any, value: int):
        self.value, self.mourners, key = value, weakref.WeakSet(), id(thing)
        self.ref = weakref.ref(thing, lambda _: self._farewell(key))

    def _farewell(self, key: int) -> None:
        if _NUMBERS.get(key) is self:
            _NUMBERS.pop(key, None)
        for mourner in list(self.mourners):
            mourner.drop()


_NUMBERS: dict[int, _Number] = {}
_COUNT = itertools.count()
atexit.register(_NUMBERS.clear)  # nobody is told of what goes when the process ends


def _number(thing: Any) -> _Number | None:
    """That of an object; None for one that cannot be referred to weakly."""
    known = _NUMBERS.get(id(thing))
    if known is not None and known.ref() is thing:
        return known
    try:
        known = _Number(thing, next(_COUNT))
    except TypeError:
        return None
    _NUMBERS[id(thing)] = known
    return known


def is_number(leaf: Any) -> bool:
    """Whether a leaf can be an argument of a compiled function whose value is not looked at: arrays and floats."""
    return isinstance(leaf, jax.Array | np.ndarray) or eqx.is_inexact_array_like(leaf)


def is_any_array(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX or NumPy, or a number of NumPy's, which is one without axes."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


class Look:
    """One look at a tree: the key of all that is no number in it, and the objects on which that key depends.

    Parameters
    ----------
    tree
        A pytree, with callables, objects and numbers as leaves.
    traced
        Which leaves are arguments: of those only the place enters the key.
    """

    def __init__(self, tree: Any, traced: Callable[[Any], bool]):
        self._traced, self._seen, self._kept = traced, {}, []
        self.numbers: list[_Number] = []
        self.bytes = 0  # of the arrays that a trace would close over
        self.key: Hashable = self._tree(tree)

    def _tree(self, node):
        if self._traced(node):
            return "number"
        inside = default_registry.flatten_one_level(node)
        if inside is None:
            return self._value(node)
        children, static = inside
        return (self._same(type(node)), self._value(static), *map(self._tree, children))

    def _same(self, thing):
        """An object, by who it is."""
        number = _number(thing)
        if number is None:
            return type(thing).__qualname__, id(thing)
        self.numbers.append(number)
        return number.value

    def _value(self, thing):
        """An object, by all that a trace may read of it."""
        kind = type(thing)
        if kind in _BY_VALUE or isinstance(thing, np.dtype):
            return kind.__name__, thing
        if isinstance(thing, float):
            return kind.__name__, float(thing).hex()
        if isinstance(thing, np.generic):
            return str(thing.dtype), thing.tobytes()
        if id(thing) in self._seen:
            return "again", self._seen[id(thing)]
        self._seen[id(thing)] = len(self._seen)
        self._kept.append(thing)  # else another object might come to lie where this one lay
        if len(self._seen) > _LOOKS:
            return self._same(thing)
        return self._inside(thing)

    def _inside(self, thing):
        if type(thing).__name__ == "HashablePartial":  # of JAX, without a public name
            return self._unravel(thing)
        look = next((look for kinds, look in _LOOKS_INTO if isinstance(thing, kinds)), None)
        if look is not None:
            return look(self, thing)
        inside = default_registry.flatten_one_level(thing)
        if inside is not None:  # a Module, which does not change
            return self._same(type(thing)), self._value(inside[1]), *map(self._value, inside[0])
        return self._same(thing), self._same(type(thing)), *self._attributes(thing)

    def _class(self, kind):
        return self._same(kind), None if _in_library(kind) else self._value(_data_of(kind))

    def _method(self, method):
        return "method", self._value(method.__self__), self._value(method.__func__)

    def _partial(self, applied):
        return self._same(type(applied)), *map(self._value, (applied.func, applied.args, applied.keywords))

    def _unravel(self, applied):
        """What `ravel_pytree` gives to go back by, made anew at every call: by what it says."""
        return self._same(type(applied)), *map(self._value, (applied.f, applied.args, applied.kwargs))

    def _structure(self, treedef):
        return "structure", str(treedef)  # in words: static fields need have no hash

    def _set(self, items):
        return self._same(type(items)), frozenset(map(self._value, items))

    def _dict(self, items):
        return self._same(type(items)), *((self._value(key), self._value(item)) for key, item in items.items())

    def _sequence(self, items):
        return self._same(type(items)), *map(self._value, items)

    def _array(self, array):
        self.bytes += getattr(array, "nbytes", 0)
        if not isinstance(array, np.ndarray):
            return self._same(array)
        if array.dtype == object:
            return self._same(array), *map(self._value, array.ravel().tolist())
        return self._same(array), array.shape, str(array.dtype), _contents(array)

    def _function(self, function):
        """A function with its closure, its defaults, its attributes, and the globals that it names."""
        if _in_library(function) and "<locals>" not in function.__qualname__:
            return self._same(function)  # made by no call, so that it holds nothing of anybody's
        read = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        read += [function.__defaults__, function.__kwdefaults__, function.__dict__ or None]
        if not _in_library(function):
            scope, (names, attributes) = function.__globals__, _names(function.__code__)
            found = [scope[name] for name in names if name in scope]
            read += found
            read += [_data_of(module, attributes) for module in found if isinstance(module, types.ModuleType)]
        return self._same(function), self._same(function.__code__), *map(self._value, read)

    def _attributes(self, thing):
        slots = [name for kind in type(thing).__mro__ for name in _slots(kind)]
        found = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
        found |= getattr(thing, "__dict__", {})
        found |= {f"{kind.__qualname__}.": _data_of(kind) for kind in type(thing).__mro__ if not _in_library(kind)}
        return ((name, self._value(value)) for name, value in found.items())


def _is_filled(cell) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is not bound yet
        return False


@lru_cache(maxsize=4096)  # of code, which holds no data
def _names(code) -> tuple[tuple[str, ...], frozenset[str]]:
    """The globals that a function reads, and the names of attributes, those of its inner functions too."""
    own = [step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    inner = [_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    names = dict.fromkeys([*own, *(name for names, _ in inner for name in names)])
    return tuple(names), frozenset(code.co_names).union(*(attributes for _, attributes in inner))


def _in_library(thing) -> bool:
    return (getattr(thing, "__module__", None) or "").partition(".")[0] in _LIBRARIES


def _data_of(place: Any, names: frozenset[str] | None = None) -> dict:
    """What a module or a class holds that is neither function nor class; only what is named, if names are given."""
    held, kinds = vars(place), bool | int | float | str | tuple | list | dict | np.ndarray | jax.Array
    names = [name for name in held if not name.startswith("__")] if names is None else names & held.keys()
    return {name: held[name] for name in sorted(names) if isinstance(held[name], kinds)}


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    slots = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in slots if name not in ("__weakref__", "__dict__"))


def _contents(array: np.ndarray) -> tuple:
    """What tells that the entries of an array were changed in place."""
    if array.nbytes <= _LARGE:
        return (zlib.crc32(np.ascontiguousarray(array).view(np.uint8)) if array.ndim else array.tobytes(),)
    flat = array.reshape(-1)
    words = np.ascontiguousarray(flat).view(np.uint8)
    whole = words[: words.size // 8 * 8].view(np.uint64)
    sample = np.ascontiguousarray(whole[:: max(whole.size // 2**14, 1)])
    return int(np.add.reduce(whole, dtype=np.uint64)), zlib.crc32(sample), words[words.size // 8 * 8 :].tobytes()


_LOOKS_INTO = (
    (jax.Array | np.ndarray, Look._array),
    (type, Look._class),
    (types.ModuleType | types.BuiltinFunctionType, Look._same),
    (types.FunctionType, Look._function),
    (types.MethodType, Look._method),
    (partial, Look._partial),
    (jax.tree_util.PyTreeDef, Look._structure),
    (set | frozenset, Look._set),
    (dict, Look._dict),
    (tuple | list, Look._sequence),
)
