"""Many orbits at once: blocks of lanes with early exit, stragglers packed anew, all cores or devices busy.

This is the only place that batches. A lane is one (initial point, step size) pair; what goes wrong in a lane is data
(its `Outcome`), never an exception. Outcome and step count of a lane do not depend on the tile, the number of devices,
or the other lanes: blocks are of one size for a dtype and a state, and run one program. What another `block` may change
is said in `run`.
"""

import dataclasses
import itertools
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab._compiling import Use
from gdstab._contract import entry
from gdstab._datasets import LANES, recorded
from gdstab._identity import is_number
from gdstab._results import origin
from gdstab._types import LossFn
from gdstab._validate import check_count, check_step_sizes
from gdstab.ensembles._examining import bytes_of_an_update, check_system, one_point, runs_by_itself
from gdstab.ensembles._kernel import LaneLoss, Static, System
from gdstab.ensembles._points import Feed, as_points, is_source, map_points
from gdstab.ensembles._tiles import Job, Tile, run_tile
from gdstab.ensembles._tuning import FIRST, Pace, bytes_of, choose, worker_pool
from gdstab.outcomes import StoppingRule, check_floor, check_range, floor_of, names, typical_size
from gdstab.updates import UpdateRule

__all__ = ["FIRST", "TILE", "EnsembleResult", "Pace", "Tile", "iter_run", "map_points", "run", "worker_pool"]
__dir__ = __all__.copy  # nothing else is for users

TILE = 2**22
"""Lanes whose results are gathered together: the unit in which `iter_run` yields."""


@recorded(
    dict.fromkeys(("outcome", "steps", "period", "loss", "theta", "state"), LANES),
    coords={"step_size": "step_sizes"}, attrs=("lane_steps", "compile_seconds", "run_seconds"),
    codes={"outcome": "outcomes"},
)  # fmt: skip
class EnsembleResult(eqx.Module):
    """How every lane of an ensemble ended: NumPy arrays of shape [steps, points], [points] or [lanes]."""

    outcome: np.ndarray  # int8, see `Outcome`
    steps: np.ndarray  # int32, updates applied when the verdict fell
    period: np.ndarray  # int32, 0 unless the outcome is CYCLING
    theta: Any  # the last parameters, further axes behind the lanes; None unless kept
    state: Any  # the last state of the update rule, likewise: momentum and all; None unless kept
    loss: np.ndarray | None  # the last loss; None unless kept
    step_sizes: np.ndarray
    lane_steps: int  # updates applied, all lanes together
    compile_seconds: float
    run_seconds: float
    origin: dict = eqx.field(static=True, default_factory=dict)  # rule, loss, stopping rule, dtype, versions, in words
    outcomes: tuple[str, ...] = eqx.field(static=True, default=names())  # what the codes of `outcome` mean

    @property
    def counts(self) -> dict[str, int]:
        """Lanes per verdict, all step sizes together."""
        lanes = np.bincount(self.outcome.ravel(), minlength=len(self.outcomes)).tolist()
        return dict(zip(self.outcomes, lanes, strict=True))


@entry(host=True)
def run(
    rule: UpdateRule,
    loss: LossFn,
    initial,
    step_sizes,
    stopping: StoppingRule,
    *,
    product: bool = True,
    keep: str | tuple[str, ...] = ("theta", "loss"),
    block: int | None = None,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
) -> EnsembleResult:
    r"""Run one orbit per lane until `stopping` passes its verdict.

    Parameters
    ----------
    rule
        `updates.gradient_descent()`, `updates.from_optax(...)`, or any `UpdateRule`.
    loss
        Any function of one point `theta` that returns a real scalar: a function, a method, a partial, an object with
        `__call__`. An `equinox.Module`'s arrays and floats may change without a new compilation. Anything else compiles
        once for as long as neither it nor what it closes over changes, and what was compiled goes when it goes.
    initial
        Points `[points, ...]` (a pytree of arrays for a pytree `theta`), or a lazy source such as
        `sampling.GridSource`. The dtype of the points is the dtype of the run, 32 or 64 bits. Of a network only the
        arrays are parameters: see `equinox.partition`.
    step_sizes
        A scalar, or `[steps]`.
    stopping
        See `outcomes.StoppingRule`.
    product
        If true, every point runs with every step size: the result has shape `[steps, points]`, or `[points]` for a
        scalar step size. If false, lane i pairs point i with step size i.
    keep
        Which of "theta", "loss" and "state" (all that the update rule remembers) to keep at the end points: one of
        these words or several.
    block
        Lanes that leave a loop together, in multiples of 16; by default what suits the platform for this dtype and
        size of state, whatever the number of lanes, devices or tiles. Another block is another program, for which a
        compiler may round a loss in another way: a verdict or a count at the edge of a tolerance, and any lane of a
        chaotic orbit, can then differ. With the losses of `losses` none does: their sums are written in an order of
        their own, and those that say by `one_block(theta)` that this is not enough keep to the default block.
    devices
        JAX devices to share the work; by default all local ones.
    progress
        Called on the host as `progress(lanes decided, updates applied)` since the last call.

    Raises
    ------
    ValueError
        If the loss is no real scalar, a step size is not positive and finite, or points and step sizes do not fit.
    MemoryError
        If the result does not fit into memory.
    RuntimeError
        In a process that was forked after JAX had been used, which would hang.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.outcomes import Outcome, StoppingRule
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: (1 - theta[0] * theta[1]) ** 2
    >>> points = jnp.array([[0.5, 1.5], [3.0, 3.0]])
    >>> result = run(gradient_descent(), loss, points, 0.3, StoppingRule())
    >>> [Outcome(code).name for code in result.outcome]
    ['CONVERGED', 'DIVERGED']
    """
    begin = time.perf_counter()
    _, shape, points = _layout(initial, step_sizes, product)
    whole = int(np.prod(shape, dtype=np.int64))
    parts = iter_run(
        rule, loss, initial, step_sizes, stopping,
        product=product, keep=keep, block=block, tile=whole, devices=devices, progress=progress,
    )  # fmt: skip
    try:
        tiles = list(parts)
    except MemoryError as error:
        raise MemoryError(
            f"the result of {whole} lanes does not fit into memory: keep no end points (`keep=()`) where outcomes are "
            "enough, or take them in tiles from `ensembles.iter_run`"
        ) from error
    fields = {
        name: _join([getattr(t, name) for t in tiles], shape)
        for name in ("outcome", "steps", "period", "theta", "state", "loss")
    }
    compile_seconds = sum(t.compile_seconds for t in tiles)
    return EnsembleResult(
        **fields,
        step_sizes=np.asarray(step_sizes),
        lane_steps=sum(t.lane_steps for t in tiles),
        compile_seconds=compile_seconds,
        run_seconds=time.perf_counter() - begin - compile_seconds,
        outcomes=names(stopping),
        origin=origin(rule, loss, stopping, points if is_source(points) else None, _dtype(points)),
    )


@entry(host=True)
def iter_run(
    rule: UpdateRule,
    loss: LossFn,
    initial,
    step_sizes,
    stopping: StoppingRule,
    *,
    product: bool = True,
    keep: str | tuple[str, ...] = (),
    block: int | None = None,
    tile: int = TILE,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
    spans: Iterable[tuple[int, int]] | None = None,
) -> Iterator[Tile]:
    """As `run`, but yield `tile` lanes at a time, in order, so that an ensemble need not fit into memory.

    Lane number `s * points + p` pairs step size `s` with point `p`. With `spans`, a list of `(first lane, behind the
    last)`, only those lanes run, a tile for each: what an interrupted run still lacks, or the share of one process. An
    iterator of them (`Pace.spans`) is asked for the next when it is due. The next tile runs while the caller works on
    this one.

    Raises
    ------
    ValueError
        As `run`; at the call, not at the first tile.
    """
    tile = check_count(tile, "tile")
    job, total = _job(rule, loss, initial, step_sizes, stopping, product, keep, block, tile, devices, progress)
    if spans is None:
        spans = job.feed.spans(total, tile)
    if not isinstance(spans, Iterator):
        spans = [tuple(map(operator.index, span)) for span in spans]
    wrong = [] if isinstance(spans, Iterator) else [span for span in spans if not job.feed.allows(*span, total)]
    if wrong:
        job.pool.shutdown()
        rows = f" of one step size ({job.feed.num_points} lanes each)" if job.feed.by_rows else ""
        raise ValueError(f"each of `spans` must be some of {total} lanes{rows}, but got {wrong[0]}; cut them to those")
    return _tiles_in_order(job, spans)


def _tiles_in_order(job: Job, spans: Iterable[tuple[int, int]]) -> Iterator[Tile]:
    if job.alone:  # nothing runs while the caller is at work, who may call what this would wait for
        with job.pool:
            yield from (run_tile(job, *span) for span in spans)
        return
    spans = iter(spans)
    with job.pool, worker_pool(2) as ahead:
        waiting = [ahead.submit(run_tile, job, *span) for span in itertools.islice(spans, 2)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [ahead.submit(run_tile, job, *span) for span in itertools.islice(spans, 1)]


def _join(parts: list, shape: tuple[int, ...]):
    """The tiles' arrays in the shape of the ensemble."""
    if parts[0] is None:
        return None
    joined = parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), joined)


def _layout(initial, step_sizes, product: bool) -> tuple[int, tuple[int, ...], Any]:
    """Number of points, shape of the result, and the points themselves."""
    points, num_points = (initial, initial.num_points) if is_source(initial) else as_points(initial)
    sizes = np.shape(step_sizes)
    if product or not sizes:
        return num_points, (*sizes, num_points), points
    if sizes != (num_points,):
        raise ValueError(
            f"with `product=False` there must be one step size per point: expected {num_points}, but got shape {sizes}."
        )
    return num_points, (num_points,), points


def _job(rule, loss, initial, step_sizes, stopping, product, keep, block, tile, devices, progress) -> tuple[Job, int]:
    """Validate everything once on the host, and lay out the work."""
    keep = frozenset({keep} if isinstance(keep, str) else keep)
    if unknown := keep - {"theta", "loss", "state"}:
        raise ValueError(f"`keep` may name 'theta', 'loss' and 'state', but got {sorted(map(str, unknown))}.")
    block = None if block is None else check_count(block, "block")
    num_points, shape, points = _layout(initial, step_sizes, product)
    floor = floor_of(loss)
    if floor is None:  # there is nothing to come near to
        stopping = dataclasses.replace(stopping, loss_tol=None)
    budget = jnp.asarray(stopping.max_steps, jnp.int32)  # an argument of the passes, which compile for none
    fixed = eqx.tree_at(lambda rule: rule.max_steps, stopping, budget)
    source = points if is_source(points) else None
    use = Use(System(rule, LaneLoss(loss, float(floor or 0.0)), fixed, source), is_number)
    one = one_point(use, points)
    dtype = jax.tree.leaves(one)[0].dtype
    step_sizes = np.atleast_1d(check_step_sizes(step_sizes, dtype))
    check_range(stopping, dtype)
    state = check_system(use, one, dtype)
    devices = tuple(jax.local_devices() if devices is None else devices)
    total = int(np.prod(shape, dtype=np.int64))
    one_block = getattr(loss, "one_block", None)
    if block is not None:
        whole = -(-block // 16) * 16  # whole vectors: every lane takes the same instructions
        block = None if one_block is not None and one_block(one) else whole
    together = getattr(loss, "lanes_together", None)
    working = bytes_of_an_update(use, one, state, dtype)
    tuning = choose(devices[0].platform, min(total, tile), bytes_of(state), len(devices), block, together, working)
    numbered = getattr(rule, "numbered", False)
    feed = Feed(points, num_points, step_sizes, not product and len(step_sizes) > 1, numbered)
    want_state = bool(keep & {"theta", "state"}) or not feed.can_take
    static = Static(tuning.chunk, tuning.block, tuning.updates_per_test, "loss" in keep, want_state)
    numbers = jax.device_put(use.numbers, devices[0] if len(devices) == 1 else None)
    alone = runs_by_itself(use, numbers, static, feed, one, devices[0].platform)
    job = Job(
        use=use,
        static=static,
        numbers=numbers,
        feed=feed,
        tuning=tuning,
        point=one,
        state=state,
        devices=devices,
        max_steps=stopping.max_steps,
        keep=keep,
        progress=progress,
        check_floor=partial(
            check_floor, loss, loss_tol=stopping.loss_tol, dtype=dtype, size=cache(partial(_size, loss, points))
        ),
        pool=worker_pool(1 if alone else tuning.workers),
        turns=itertools.count(),
        lock=threading.Lock(),
        alone=alone,
    )
    return job, total


def _dtype(points) -> np.dtype:
    made = eqx.filter_eval_shape(points, jnp.zeros(1, jnp.int32)) if is_source(points) else points
    return jax.tree.leaves(made)[0].dtype


def _size(loss: LossFn, points) -> float:
    """How large the loss is near the first few initial points."""
    few = range(min(points.num_points, 4)) if is_source(points) else range(min(len(jax.tree.leaves(points)[0]), 4))
    made = points(jnp.asarray(few, jnp.int32)) if is_source(points) else points
    return typical_size(loss, [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], made) for i in few])
