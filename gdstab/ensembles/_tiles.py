"""One tile of lanes on the host: chunks go to the devices from a thread pool, stragglers are packed and sent again."""

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gdstab._compiling import Use, kind_of
from gdstab._guard import turn
from gdstab.ensembles._kernel import Lanes, Static, Swept, compiled, over_lanes
from gdstab.ensembles._points import Feed
from gdstab.ensembles._tuning import Tuning, stops
from gdstab.outcomes import Outcome


class Tile(NamedTuple):
    """Lanes `start` to `stop` of an ensemble, as NumPy arrays of that length; `lane` is step index x points + point."""

    start: int
    stop: int
    outcome: np.ndarray
    steps: np.ndarray
    period: np.ndarray
    theta: Any  # None unless kept
    state: Any
    loss: np.ndarray | None
    lane_steps: int
    compile_seconds: float


class Job(NamedTuple):
    """What all tiles of one ensemble share."""

    use: Use  # of the `System`
    static: Static
    numbers: list  # those of the system, on the device
    feed: Feed
    tuning: Tuning
    point: Any  # shapes and dtype of one initial point
    state: Any  # the same of the state that it begins with
    devices: tuple
    max_steps: int
    keep: frozenset
    progress: Callable | None
    check_floor: Callable  # (least loss - loss_floor of some lanes that converged) -> None, or an error
    pool: ThreadPoolExecutor
    turns: itertools.count
    lock: threading.Lock
    alone: bool  # whether no other pass may run beside one of this job


class Packed(NamedTuple):
    """Stragglers on the host: their lanes, and their states with the lanes first, or None where they start again."""

    place: np.ndarray  # in the tile
    lane: np.ndarray  # in the ensemble
    state: Any
    step_size: np.ndarray  # a scalar where all lanes share it


def run_tile(job: Job, start: int, stop: int) -> Tile:
    """Run lanes `start` to `stop` to their verdicts, in passes of growing length over ever fewer lanes.

    Compilation is timed apart: see `_warm_up`.
    """
    passes = stops(job.max_steps)
    store, lane_steps = _Store(job, stop - start), 0
    compile_seconds = _warm_up(job, "first", _first_pass, start, start, 0)
    pieces = _pieces(stop - start, job.tuning.chunk)
    work = [partial(_first_pass, job, start + a, start + b) for a, b in pieces]
    places = [range(a, b) for a, b in pieces]
    for since, until in passes:
        finish = partial(_finish, job, store, start, since, until)
        left, updates = zip(*job.pool.map(finish, work, places), strict=True)
        lane_steps += sum(updates)
        packed = _join(left)
        if not len(packed.place) or until == job.max_steps:
            break
        kind = "again" if packed.state is None else "later"
        compile_seconds += _warm_up(job, kind, _later_pass, _cut(packed, 0, 0), until, until)
        share = max(-(-len(packed.place) // job.tuning.workers), job.tuning.block)
        parts = [_cut(packed, a, b) for a, b in _pieces(len(packed.place), min(share, job.tuning.later))]
        work, places = [partial(_later_pass, job, part, until) for part in parts], [part.place for part in parts]
    kept = store.theta, store.state, store.loss
    return Tile(start, stop, store.outcome, store.steps, store.period, *kept, lane_steps, compile_seconds)


def _pieces(total: int, size: int) -> list[tuple[int, int]]:
    return [(a, min(a + size, total)) for a in range(0, total, size)]


def _warm_up(job: Job, kind: str, call: Callable, *args) -> float:
    """Seconds that the first call of its kind takes, on lanes that only pad: those of its compilation."""
    known = (kind, job.static, job.tuning, job.devices, job.feed.by_rows, kind_of((job.point, job.numbers)))
    warm = job.use.entry.once("warm", set)
    with job.lock:
        if known in warm:
            return 0.0
        begin = time.perf_counter()
        call(job, *args)
        warm.add(known)
        return time.perf_counter() - begin


def _place(job: Job, args):
    """The arguments on the next device in turn; a single device takes them as they are."""
    return args if len(job.devices) == 1 else jax.device_put(args, job.devices[next(job.turns) % len(job.devices)])


def _first_pass(job: Job, start: int, stop: int, until: int) -> Swept:
    first, _ = compiled(job.devices[0].platform, job.use.entry, job.static)
    args = _place(job, job.feed(start, stop, job.tuning.chunk))
    with turn(job.alone):
        return jax.block_until_ready(first(job.numbers, *args, np.int32(stop - start), np.int32(until)))


def _later_pass(job: Job, part: Packed, since: int, until: int) -> Swept:
    chunk, block = job.tuning.later, job.tuning.block
    static = job.static._replace(chunk=chunk, want_state=True)
    again, later = compiled(job.devices[0].platform, job.use.entry, static)
    if part.state is None:  # cheaper than handing back the states of all lanes for the sake of a few
        args = _place(job, job.feed.take(part.lane, chunk))
        with turn(job.alone):
            return jax.block_until_ready(again(job.numbers, *args, np.int32(len(part.place)), np.int32(until)))
    state = jax.tree.map(lambda leaf: _spread(leaf, chunk, block), part.state)
    alive = (np.arange(chunk) < len(part.place)).reshape(-1, block)
    count, period = np.full(alive.shape, since, np.int32), np.zeros(alive.shape, np.int32)
    sizes = np.full(chunk // block, part.step_size) if job.feed.by_rows else _spread(part.step_size, chunk, block)
    lanes = Lanes(state, count, alive, period, sizes)
    with turn(job.alone):
        return jax.block_until_ready(later(job.numbers, _place(job, lanes), np.int32(since), np.int32(until)))


def _finish(job: Job, store: "_Store", start: int, since: int, until: int, call: Callable, place) -> tuple[Packed, int]:
    """Do a pass, store and report what it found, and take out the lanes without a verdict; with its updates."""
    swept, used = call(until), len(place)
    if swept.lowest is not None:
        job.check_floor(float(np.min(swept.lowest)))
    outcome, count = _flat(swept.outcome, used), _flat(swept.count, used)
    store.put(job, place, swept)
    updates = int(count.sum(dtype=np.int64)) - since * used
    left = np.flatnonzero(outcome == Outcome.UNDECIDED)
    if job.progress is not None:
        with job.lock:
            job.progress(used - len(left), updates)
    row, column = np.divmod(left, job.tuning.block)
    state = jax.tree.map(lambda leaf: np.asarray(leaf)[row, ..., column], swept.state)
    sizes = np.asarray(swept.step_size)
    where = left + place.start if isinstance(place, range) else place[left]
    return Packed(where, where + start, state, sizes[0] if job.feed.by_rows else sizes[row, column]), updates


class _Store:
    """The arrays that a tile fills in; every pass writes to places of its own."""

    def __init__(self, job: Job, num_lanes: int):
        self.outcome = np.empty(num_lanes, np.int8)
        self.steps = np.empty(num_lanes, np.int32)
        self.period = np.zeros(num_lanes, np.int32)

        def room(shapes):
            return jax.tree.map(lambda leaf: np.empty((num_lanes, *leaf.shape), leaf.dtype), shapes)

        self.theta = room(job.point) if "theta" in job.keep else None
        self.state = room(job.state) if "state" in job.keep else None
        self.loss = np.empty(num_lanes, jax.tree.leaves(job.point)[0].dtype) if "loss" in job.keep else None

    def put(self, job: Job, place: range | np.ndarray, swept: Swept) -> None:
        """Write the lanes of one pass to their places."""
        used = len(place)
        where = slice(place.start, place.stop) if isinstance(place, range) else place
        self.outcome[where] = _flat(swept.outcome, used)
        self.steps[where] = _flat(swept.count, used)
        if job.use.tree.stopping.max_period is not None:
            self.period[where] = _flat(swept.period, used)
        if self.loss is not None:
            self.loss[where] = _flat(swept.loss, used)
        # Rules may work out theta from numbers of a lane; where it is but a part of the state, nothing is copied.
        theta = jax.vmap(over_lanes(job.use.tree.rule.theta))
        for rooms, found in ((self.theta, theta), (self.state, lambda state: state)):
            if rooms is not None:
                for room, leaf in zip(jax.tree.leaves(rooms), jax.tree.leaves(found(swept.state)), strict=True):
                    room[where] = _flat(leaf, used)


def _flat(leaf, used: int) -> np.ndarray:
    """`[blocks, *shape, block]` -> the first `used` of `[blocks x block, *shape]`."""
    leaf = np.moveaxis(np.asarray(leaf), -1, 1)
    return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])[:used]


def _spread(leaf: np.ndarray, chunk: int, block: int) -> np.ndarray:
    """`[n, *shape]` -> `[chunk / block, *shape, block]`, padded with zeros."""
    padded = np.zeros((chunk, *leaf.shape[1:]), leaf.dtype)
    padded[: len(leaf)] = leaf
    return np.moveaxis(padded.reshape(chunk // block, block, *leaf.shape[1:]), 1, -1)


def _join(parts: tuple[Packed, ...]) -> Packed:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves) if leaves[0].ndim else leaves[0], *parts)


def _cut(packed: Packed, start: int, stop: int) -> Packed:
    return jax.tree.map(lambda leaf: leaf[start:stop] if leaf.ndim else leaf, packed)
