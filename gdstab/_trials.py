"""How the integers of a state act on the step of a rule, found by trying: they fade, come round, or neither.

The step is taken at a few generic states, for a loss made for it, with the integers that the rule itself arrives at
early, late and very late. What is compared is where it leads, to a small part of how far it leads.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gdstab._types import LossFn, State

_LATE = (2**24, 2**28)
"""Steps after which an influence that fades has done so: at both the step must be the same."""
_LENGTHS = (64, 512, 4096)
"""Steps that are looked at, longer ones if need be: a quarter of the last is the longest round that is found."""
_RUN = 1024  # steps over which integers that grow are seen to do so
_SAMPLES = 512  # entries of each leaf that are compared
_STEP_SIZE = 0.05  # small beside the curvatures of the loss that is tried, 0.5 to 1.5
_TIMES = (1, 2, 3, 7)  # steps from the beginning to the states of each lane that are tried
_LANES = len(_TIMES)


class Clock:
    """What the integers of a rule do to its step; equal to itself only."""

    def __init__(self, period: int = 1, growth: tuple = (), last: tuple = ()):
        self.period = period
        """Steps of a round; 1 where one step is one map, in the long run at least."""
        self._growth, self._last = growth, last  # of each integer leaf: in many rounds, and where it stops if it does

    @property
    def idle(self) -> bool:
        """Whether the integers say nothing to the step, early or late."""
        return not self._growth

    def late(self, state: State) -> State:
        """The state after very many rounds, as far as its integers go: in the same phase, and what fades has faded."""
        leaves, structure = jax.tree.flatten(state)
        places = [place for place, leaf in enumerate(leaves) if counts(leaf)]
        for place, growth, last in zip(places, self._growth, self._last, strict=True) if not self.idle else ():
            leaf = leaves[place]
            if last is not None:
                leaves[place] = _as_leaf(last, leaf)
            elif np.any(growth):  # one that is late already stays, so that none passes the end of its range
                by = jnp.asarray(growth, jnp.result_type(leaf))
                leaves[place] = jnp.where(jnp.abs(leaf) < abs(by), leaf + by, leaf)
        return jax.tree.unflatten(structure, leaves)


IDLE = Clock()


class Untimed(ValueError):
    """The integers of a rule neither fade nor come round."""


class _Walk(NamedTuple):
    """What a number of steps does to a few fixed states, their integers alone advancing."""

    integers: list  # of arrays [steps + 1, lanes, ...], one for each integer leaf
    table: np.ndarray  # [steps, lanes, entries], where the step leads
    moved: np.ndarray  # [lanes, entries], by how much at the most
    motion: float  # of the parameters, at the most


class Trial:
    """The steps of a rule at generic states and at the integers that it arrives at by itself."""

    def __init__(self, rule, loss: LossFn | None, state: State):
        floats = [leaf for leaf in jax.tree.leaves(state) if is_number(leaf) and not counts(leaf)]
        with jax.numpy_dtype_promotion("standard"):
            eta = jnp.asarray(_STEP_SIZE, jnp.result_type(*floats) if floats else float)
        lanes = [_begin(rule, state, eta, number) for number in range(_LANES)]
        path = [jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *lanes)]
        theta = getattr(rule, "theta", None) or (lambda state: state)
        leaves = jax.tree_util.tree_leaves_with_path(state)
        places = [place for place, (_, leaf) in enumerate(leaves) if counts(leaf)]
        self.names = ", ".join(f"state{jax.tree_util.keystr(leaves[place][0])}" for place in places)
        self.eps = float(jnp.finfo(eta.dtype).eps)

        @jax.jit
        def look(states, integers):
            """The states after a step, their integers, some of their entries, and how far the parameters moved."""
            leaves, structure = jax.tree.flatten(states)
            for place, leaf in zip(places, integers, strict=True):
                leaves[place] = leaf
            now = jax.tree.unflatten(structure, leaves)
            moved = lax.map(lambda one: rule.step(_Tried(loss), one, eta), now)
            by = jnp.max(jnp.nan_to_num(jnp.abs(_entries(jax.vmap(theta)(moved)) - _entries(jax.vmap(theta)(now)))))
            return moved, [jax.tree.leaves(moved)[place] for place in places], _entries(moved), by

        self.look = lambda states, integers: look(states, integers)[1:]
        self.like = [jax.tree.leaves(path[0])[place] for place in places]
        self.start = [_as_numbers(leaf) for leaf in self.like]
        for _ in range(max(_TIMES)):
            path.append(look(path[-1], [jax.tree.leaves(path[-1])[place] for place in places])[0])
        # Every lane at another time, so that one of them at least has something gathered, whatever its phase.
        self.states = jax.tree.map(lambda *xs: jnp.stack([xs[at][lane] for lane, at in enumerate(_TIMES)]), *path)
        self.before = np.asarray(_entries(self.states))

    def clock(self) -> Clock:
        """The clock, from ever longer looks."""
        for length in _LENGTHS:
            early = self.walk(self.start, length)
            noisy = [place for place, leaf in enumerate(early.integers) if _is_noisy(leaf)]
            if noisy and (length == _LENGTHS[0] or not self.without(noisy, early)):
                continue
            early = self.walk(self.start, length, noisy) if noisy else early
            if found := self.late(early, noisy, length):
                return found
        raise Untimed(
            "expected a rule whose step is one map, or comes round after a fixed number of steps, got one whose "
            f"integers ({self.names}) make it another step each time: a schedule, random numbers, or a count that "
            "depends on the orbit; hold them at a value, or study its orbits alone"
        )

    def late(self, early: _Walk, held, length: int) -> Clock | None:
        """The clock as it is very late, and whether it was another one before; None if a longer look may tell."""
        rounds = _growth(early.integers)
        if rounds is None or not self.goes_on(*rounds, length):
            return None
        steps, growth = rounds
        begin = [leaf[length - length % steps] for leaf in early.integers]
        jumps = [_rounds_until(horizon, begin, growth) for horizon in _LATE]
        walks = [self.walk(_jumped(begin, growth, jump), length, held) for jump in jumps]
        periods = range(1, length // 2 + 1)
        period = next((p for p in periods if all(self.returns(walk, p) for walk in walks)), None)
        gathers = walks[1].motion == early.motion == 0 and length < _LENGTHS[-1]
        if period is None or gathers or not self.agree(*walks, steps * (jumps[1] - jumps[0]) % period, period):
            return None
        if walks[1].motion == 0 < early.motion:
            raise Untimed(
                f"expected a rule that goes on moving, got one whose step vanishes as its integers ({self.names}) "
                "grow, as under a schedule that decays; hold it at a value, or study its orbits alone"
            )
        if period == 1 and self.same(early, early.table, walks[1].table[:1]):
            return IDLE
        many = jumps[1] - jumps[1] % period
        ends = [_end(first, leaf) for first, leaf in zip(self.start, walks[1].integers, strict=True)]
        return Clock(period, tuple(by * many for by in growth), tuple(ends))

    def without(self, noisy: list, early: _Walk) -> bool:
        """Whether integers that differ between orbits, or never repeat, may as well stand still, wherever they do."""
        for jump in (0, *_LATE):
            begin = [_later(leaf, jump) if n in noisy else leaf for n, leaf in enumerate(self.start)]
            still = self.walk(begin, len(early.table), noisy)
            if not self.same(early, early.table, still.table):
                return False
        return True

    def walk(self, integers: list, length: int, held=()) -> _Walk:
        """Steps from the fixed states; integers in `held` stay where they are."""
        now = [_as_leaf(leaf, self.like[n]) for n, leaf in enumerate(integers)]
        paths, table, begin, motion = [integers], [], now, 0.0
        for _ in range(length):
            now, there, change = self.look(self.states, now)
            now = [begin[n] if n in held else leaf for n, leaf in enumerate(now)]
            paths.append([_as_numbers(leaf) for leaf in now])
            table.append(np.asarray(there))
            motion = max(motion, float(change))
        table = np.stack(table)
        change = np.abs(table - self.before)
        moved = np.max(change, axis=0, initial=0, where=np.isfinite(change))
        return _Walk([np.stack(leaf) for leaf in zip(*paths, strict=True)], table, moved, motion)

    def goes_on(self, steps: int, growth: list, length: int) -> bool:
        """Whether integers that grow do so for long, and are not set back at a value that was jumped over."""
        if length >= _RUN or not any(map(np.any, growth)):
            return True
        now, path = [_as_leaf(leaf, self.like[n]) for n, leaf in enumerate(self.start)], []
        for _ in range(_RUN):
            path.append([_as_numbers(leaf) for leaf in now])
            now = self.look(self.states, now)[0]
        late = [np.stack(leaf)[_RUN // 2 :] for leaf in zip(*path, strict=True)]
        return all((_differences(leaf, steps) == by).all() for leaf, by in zip(late, growth, strict=True) if np.any(by))

    def same(self, walk: _Walk, a: np.ndarray, b: np.ndarray) -> bool:
        """Whether steps lead to the same, to within a small part of how far they lead."""
        both = np.isfinite(a) & np.isfinite(b)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= 4 * self.eps**0.5 * walk.moved + 8 * self.eps * np.abs(b)
        return bool((near | ~both).all() and (np.isfinite(a) == np.isfinite(b)).all())

    def agree(self, first: _Walk, second: _Walk, apart: int, period: int) -> bool:
        """Whether two walks are the same, from a number of steps apart in their round."""
        return self.same(first, first.table[apart : apart + period], second.table[:period])

    def returns(self, walk: _Walk, period: int) -> bool:
        """Whether the steps of a walk come round after so many."""
        table = walk.table
        return self.same(walk, table[period], table[0]) and self.same(walk, table[period:], table[:-period])


class _Tried(NamedTuple):
    """A loss of positive curvature, 0 in its minimum; what else is asked of it is asked of another one."""

    other: Any

    def __call__(self, theta):
        with jax.numpy_dtype_promotion("standard"):
            return sum(_bowl(number, leaf) for number, leaf in enumerate(jax.tree.leaves(theta)) if _floats(leaf))

    def __getattr__(self, name):
        return getattr(self.other, name)


def _bowl(number: int, leaf):
    away = leaf - _minimum(number, leaf)
    square = jnp.real(away * jnp.conj(away))
    return jnp.sum(square * (0.5 + square / 4) * (1 + _spread(number, leaf, 2.4) / 2), dtype=square.dtype)


def _minimum(number: int, leaf):
    return jnp.asarray(0.5 + _spread(number, leaf, 1.7) / 10, leaf.dtype)


def _spread(number: int, leaf, pace: float):
    """Numbers in [-1, 1] in general position, shaped as a leaf."""
    places = np.arange(1, int(np.prod(leaf.shape)) + 1).reshape(leaf.shape) + 0.61 * number
    return np.cos(pace * places).astype(np.finfo(leaf.dtype).dtype)


def _entries(lanes):
    """Some entries of every floating-point leaf, [lanes, entries]."""
    leaves = [leaf.reshape(_LANES, -1) for leaf in jax.tree.leaves(eqx.filter(lanes, eqx.is_inexact_array))]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.concatenate([leaf[:, :: max(1, leaf.shape[1] // _SAMPLES)] for leaf in leaves], axis=1)


def _begin(rule, state: State, eta, lane: int) -> State:
    """A state in general position, above the minimum of the tried loss for the last lane."""
    away = 0.3 if lane < _LANES - 1 else 0.0

    def generic(leaf, number):
        if not _floats(leaf):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return _minimum(number, leaf) + jnp.asarray(away * _spread(number + lane, leaf, 1.3), leaf.dtype)

    def in_general_position(tree):
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(structure, [generic(leaf, number) for number, leaf in enumerate(leaves)])

    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), state)
    if getattr(rule, "init", None):
        begun = rule.init(in_general_position(jax.eval_shape(rule.theta, like)), eta)
        if jax.tree.structure(begun) == jax.tree.structure(state):
            return begun
    return in_general_position(like)


def _is_noisy(leaf: np.ndarray) -> bool:
    """Whether an integer [steps + 1, lanes, ...] differs between lanes, or neither grows evenly nor repeats."""
    return bool((leaf != leaf[:, :1]).any()) or _growth([leaf]) is None


def _growth(leaves: list) -> tuple[int, list] | None:
    """The steps after which integers [steps + 1, lanes, ...] have grown by the same always, and by how much."""
    length = len(leaves[0]) - 1
    late = [leaf[length // 2 :] for leaf in leaves]
    for steps in range(1, length // 4 + 1):
        by = [_differences(leaf, steps) for leaf in late]
        if all((change == change[0, 0]).all() for change in by):
            return steps, [change[0, 0] for change in by]
    return None


def _differences(leaf: np.ndarray, steps: int) -> np.ndarray:
    """How an integer [steps, ...] has changed after so many steps."""
    leaf = leaf if leaf.dtype.kind == "f" else leaf.astype(np.int64)
    return leaf[steps:] - leaf[:-steps]


def _rounds_until(horizon: int, leaves: list, growth: list) -> int:
    """How many rounds take the fastest integer so far, and none beyond half of what it can hold."""
    many = [
        min(horizon, np.iinfo(leaf.dtype).max // 2 if leaf.dtype.kind in "iu" else horizon) // np.abs(by).max()
        for leaf, by in zip(leaves, growth, strict=True)
        if np.any(by)
    ]
    return int(min(many, default=0))


def _later(leaf: np.ndarray, by) -> np.ndarray:
    return leaf + np.asarray(by).astype(leaf.dtype) if np.any(by) else leaf


def _jumped(leaves: list, growth: list, many: int) -> list:
    """Integers after many rounds."""
    return [_later(leaf, by * many) for leaf, by in zip(leaves, growth, strict=True)]


def _end(first: np.ndarray, path: np.ndarray) -> np.ndarray | None:
    """The value that an integer has come to and stays at, other than the one that it begins with."""
    return np.asarray(path[0, 0]) if (path == path[0, 0]).all() and (path[0] != first).any() else None


def _floats(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def is_number(leaf) -> bool:
    """Whether a leaf is an array or a number."""
    return hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float)


def counts(leaf) -> bool:
    """Whether a leaf is held fixed by what looks at the floating-point entries of a state."""
    return is_number(leaf) and not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact))


def _as_numbers(leaf) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _as_leaf(numbers: np.ndarray, like):
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(numbers), impl=jax.random.key_impl(like))
    return jnp.asarray(numbers, like.dtype)
