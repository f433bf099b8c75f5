"""Compiled programs, kept for as long as what they were compiled from: bounded, by identity, and held by nobody else.

A program closes over the constants of the functions it was traced from. So whatever keeps it must let go of it once
such a function is gone, and must not be what keeps the function.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gdstab._guard import all_equations, refuse_forked, runs_alone, turn
from gdstab._identity import Look, is_any_array

MOST = 256
"""Kinds of programs that are kept, those used last."""
MOST_BYTES = 2**27
"""Of the constants that they close over, all together; each may be there several times, once for each program."""


class Slot:
    """Where a trace finds the objects of those who use a program now; it holds none of them itself."""

    def __init__(self):
        self.users: dict[int, weakref.ref] = {}

    def trace(self, fn: Callable, numbers: list, *args):
        """`fn(tree, *args)` with the numbers in the places they have in the tree."""
        user = next(user for user in (ref() for ref in list(self.users.values())) if user is not None)
        found = fn(user.whole(numbers), *args)
        user.look_again()  # what a function changes whenever it is traced is no reason to trace it again
        return found


class Entry:
    """All programs compiled for the same objects, and what else is known of these."""

    def __init__(self, look: Look):
        self.key, self.bytes, self.slot = look.key, look.bytes, Slot()
        self.known: dict[Any, Any] = {}

    def once(self, name: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, kept under a name; it may not hold the objects, see `Slot`."""
        if name not in self.known:
            self.known.setdefault(name, make())
        return self.known[name]

    def drop(self) -> None:
        """Serve nobody else."""
        if _ENTRIES.get(self.key) is self:
            _ENTRIES.pop(self.key, None)


_ENTRIES: dict[Any, Entry] = {}


def forget() -> None:
    """Let nobody meet again what is compiled, as `jax.clear_caches` does."""
    _ENTRIES.clear()


class Use:
    """Objects in use, with the entry of what is compiled for them; the entry serves for as long as this lives.

    Parameters
    ----------
    tree
        A pytree of callables, numbers and other objects.
    traced
        Which of its leaves are arguments of the programs: `numbers`, in order.
    """

    def __init__(self, tree: Any, traced: Callable[[Any], bool]):
        refuse_forked()
        self._leaves, self.structure = jax.tree.flatten(tree)
        self.tree, self._traced = tree, traced
        self.numbers = [leaf for leaf in self._leaves if traced(leaf)]
        self.entry = _entry(Look(tree, traced))
        users, key = self.entry.slot.users, id(self)
        users[key] = weakref.ref(self, lambda _: users.pop(key, None))

    def whole(self, numbers: list) -> Any:
        """The tree with other numbers in it."""
        rest = iter(numbers)
        return jax.tree.unflatten(self.structure, [next(rest) if self._traced(leaf) else leaf for leaf in self._leaves])

    def look_again(self) -> None:
        """Keep the entry under what the objects have become."""
        look = Look(self.tree, self._traced)
        if look.key != self.entry.key and _ENTRIES.get(self.entry.key) is self.entry:
            self.entry.drop()
            self.entry.key = look.key
            _keep(self.entry, look)


def _entry(look: Look) -> Entry:
    """The entry of a key, as the one used last."""
    entry = _ENTRIES.pop(look.key, None)
    if entry is not None:
        _ENTRIES[look.key] = entry
        return entry
    entry = Entry(look)
    _keep(entry, look)
    total, entries = 0, list(_ENTRIES.values())
    for rank, old in enumerate(reversed(entries)):
        total += old.bytes
        if rank and (rank >= MOST or total > MOST_BYTES):
            old.drop()
    return entry


def _keep(entry: Entry, look: Look) -> None:
    """Until any of the objects is gone, for then no key will ever be this one again."""
    _ENTRIES[entry.key] = entry
    for number in look.numbers:
        number.mourners.add(entry)


def kind_of(tree: Any) -> tuple:
    """What a trace depends on of the arrays it is given: structure, shapes, dtypes, and the width of numbers."""
    leaves, structure = jax.tree.flatten(tree)
    shapes = ((np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)
    return str(structure), *shapes, jax.config.jax_enable_x64  # in words: static fields need have no hash


@jax.tree_util.register_pytree_node_class
class _Rest:
    """What a function returns beside arrays, on its way out of a trace."""

    def __init__(self, value: Any):
        self.value = value

    def tree_flatten(self):
        return (), self

    @classmethod
    def tree_unflatten(cls, rest, _):
        return rest


class Jitted:
    """See `jit`."""

    def __init__(self, fn: Callable, traced: Callable[[Any], bool]):
        functools.update_wrapper(self, fn)
        self._fn, self._traced = fn, traced

    def __call__(self, *args, **kwargs):
        """As the function."""
        use = Use((self._fn, args, kwargs), self._traced)
        slot = use.entry.slot
        run = use.entry.once("jit", lambda: jax.jit(functools.partial(slot.trace, _called)))
        with turn(_runs_alone(run, use)):
            arrays, structure, rest = run(use.numbers)
        found = iter(arrays)
        return jax.tree.unflatten(structure.value, [next(found) if leaf is None else leaf for leaf in rest.value])


def _runs_alone(run: Callable, use: Use) -> bool:
    """Whether this call must not run beside another; within a trace nothing runs."""
    if any(isinstance(number, jax.core.Tracer) for number in use.numbers):
        return False
    return use.entry.once(
        ("alone", kind_of(use.numbers)), lambda: runs_alone(all_equations(run.trace(use.numbers).jaxpr))
    )


def _called(tree):
    fn, args, kwargs = tree
    leaves, structure = jax.tree.flatten(fn(*args, **kwargs))
    is_out = [is_any_array(leaf) for leaf in leaves]
    arrays = [leaf for leaf, out in zip(leaves, is_out, strict=True) if out]
    rest = [None if out else leaf for leaf, out in zip(leaves, is_out, strict=True)]
    return arrays, _Rest(structure), _Rest(tuple(rest))


def jit(fn: Callable, *, traced: Callable[[Any], bool] = is_any_array) -> Jitted:
    """As `equinox.filter_jit`, compiled anew for other objects or changed ones, and freed with those.

    Arrays are traced, everything else is told by `_identity.Look`: functions and objects by identity and by all that
    can be changed of them, whatever their `==` says.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> target = {"at": 1.0}
    >>> apart = jit(lambda point, place: point - place["at"])
    >>> first, target["at"] = float(apart(jnp.array(3.0), target)), 2.0
    >>> first, float(apart(jnp.array(3.0), target))
    (2.0, 1.0)
    """
    return Jitted(fn, traced)
