"""Past the critical step: where orbits end against the step size, where periods double, where bounded orbits end."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import bifurcation, sampling
from gdstab._numerics import sum_squares
from gdstab._types import LossFn
from gdstab._validate import check_step_sizes
from gdstab.studies import building
from gdstab.studies.bifurcation import Bifurcation, cascades
from gdstab.studies.options import parse_range
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.tables import picked
from gdstab.studies.work import Needs, Work
from gdstab.updates import UpdateRule

PILOT = 33, 16
"""Step sizes and starts that show what range to draw."""
_SWEPT = 500  # step sizes of the sweeps at the most
_SEARCHED = 64  # orbits that the end of bounded orbits is sought with
_DIFFERENT = 0.05  # of the range that is drawn: sweeps that are further apart ended on different attractors
_ROUNDING = 64  # units of it: sweeps that are nearer to each other are not apart, and values drawn as one
_SAME = 1e-6  # of their size, or of what is usual, where that is more: values that are nearer are drawn as one


class Setting(NamedTuple):
    """What the options stand for."""

    rule: UpdateRule
    loss: LossFn
    dim: int
    step_sizes: np.ndarray
    needs: Needs


def prepare(options: Bifurcation) -> Setting:
    """Build and check everything."""
    rule = building.build_rule(options)
    loss, dim, dtype = building.problem(options)
    step_sizes = check_options(options, dtype)
    memory = {
        "starts": len(step_sizes) * options.starts * (dim * dtype.itemsize + 5),
        "bins": 8 * len(step_sizes) * options.bins,
        "kept": PILOT[0] * min(PILOT[1], options.starts) * options.kept * dtype.itemsize,
    }
    needs = Needs(memory, len(step_sizes) * (8 * options.bins + 5 * options.starts))
    return Setting(rule, loss, dim, step_sizes, needs)


def check_options(options: Bifurcation, dtype) -> np.ndarray:
    """The step sizes; refuses what cannot be run, so that a mistake leaves no directory behind."""
    step_sizes = check_step_sizes(parse_range(options.step_sizes), dtype)
    if len(step_sizes) < 2 or not (np.diff(step_sizes) > 0).all():
        raise ValueError(
            f"--step-sizes takes at least two increasing step sizes, such as 0.4:1.0:2000, but got {options.step_sizes}"
        )
    if options.hysteresis > options.starts:
        raise ValueError(f"--hysteresis takes up to all {options.starts} --starts, but got {options.hysteresis}")
    return step_sizes


def phases(options: Bifurcation) -> dict[str, Phase]:
    """What a run goes through."""
    lanes = len(parse_range(options.step_sizes)) * max(options.starts, 0)
    rest = dict.fromkeys(("doublings", "end of bounded orbits", "sweeps", SAVING), Phase(2))
    return {"orbits": Phase(6, lanes), **rest}


def measure(options: Bifurcation, setting: Setting, work: Work):
    """The diagram; its doublings, and a closer look at them; the end of bounded orbits; sweeps up and down."""
    rule, loss, dim, step_sizes = setting[:4]
    work.enter("orbits")
    starts, observe = draw_starts(options, dim, step_sizes.dtype), observer(options.observe, loss)
    common = {"observe": observe, "escape_radius": options.escape_radius}
    look = functools.partial(
        bifurcation.orbit_diagram, rule, loss, transient=options.transient, kept=options.kept, **common
    )
    pilot = functools.partial(look, max_period=1)
    look = functools.partial(look, max_period=options.max_period)
    value_range = options.value_range or seen_range(pilot, observe, step_sizes, starts, options.bins)
    diagram = look(step_sizes, starts, bins=options.bins, value_range=value_range, progress=work.progress)
    work.enter("doublings")
    cascade, why = cascades.climb(rule, loss, diagram, options)
    more = cascades.others(rule, loss, diagram, cascade, options)
    close = cascades.zoom(look, diagram, cascade, starts)
    work.enter("end of bounded orbits")
    end = find_end(rule, loss, starts[:_SEARCHED], diagram, options)
    work.enter("sweeps")
    loop = sweep(options, setting, starts, common) if options.hysteresis else None
    summary = summarise(diagram, (cascade, why, more), end, loop)
    return dataset_of(diagram, close, loop), summary | {"exact": cascades.exact(options, loss)}


def find_end(
    rule: UpdateRule, loss: LossFn, starts: np.ndarray, diagram: bifurcation.OrbitDiagram, options: Bifurcation
) -> bifurcation.LastBounded | None:
    """Up to which step size some orbit stays bounded, beyond the range of the diagram if need be; None if none ends."""
    sizes, rows = diagram.step_sizes.astype(float), np.flatnonzero(diagram.bounded > 0)
    settings = {"max_steps": options.max_steps, "escape_radius": options.escape_radius}
    settings["rtol"] = max(1e-8, 8 * float(np.finfo(diagram.step_sizes.dtype).eps))
    for back in (0, 1, 3, 7, 15, 31, 63):  # more updates than those of the diagram may show that an orbit escapes
        if back >= rows.size:
            return None
        row = rows[-1 - back]
        high = sizes[row + 1 + back] if row + 1 + back < len(sizes) else 2 * sizes[-1]
        found = bifurcation.last_bounded(rule, loss, starts, sizes[row], high, **settings)
        while math.isinf(found.high) and found.low < 64 * sizes[-1]:
            found = bifurcation.last_bounded(rule, loss, starts, found.low, 2 * found.low, **settings)
        if found.survivors:
            return None if math.isinf(found.high) else found
    return None


def sweep(options: Bifurcation, setting: Setting, starts: np.ndarray, common: dict) -> bifurcation.Hysteresis:
    """Up and down through at most so many step sizes."""
    sizes = setting.step_sizes
    rows = np.unique(np.linspace(0, len(sizes) - 1, _SWEPT).round().astype(int))
    return bifurcation.hysteresis(
        setting.rule, setting.loss, sizes[rows], starts[: options.hysteresis], settle=min(options.transient, 1000),
        kept=min(options.kept, 128), **common,
    )  # fmt: skip


def summarise(
    diagram: bifurcation.OrbitDiagram,
    climbed: tuple[bifurcation.Cascade | None, str, list[bifurcation.Cascade]],
    end: bifurcation.LastBounded | None,
    loop: bifurcation.Hysteresis | None,
) -> dict:
    """What `summary.json` holds, but for what is known exactly; null where something is not there."""
    cascade, why, more = climbed
    flips = [] if cascade is None else cascade.flips
    rows = zip(diagram.step_sizes, diagram.bounded, diagram.common_period, strict=True)
    return {
        "doublings": [flip.step_size for flip in flips],
        "periods": [flip.period for flip in flips],
        "seen_between": [seen_between(diagram, flip.step_size, flip.period) for flip in flips],
        "ended": why,
        "others": [{"doublings": other.step_sizes, "periods": other.periods, "ended": other.ended} for other in more],
        "feigenbaum_ratios": [] if cascade is None else cascade.ratios,
        "accumulation": None if cascade is None else cascade.accumulation,
        "last_bounded": None if end is None else end.low,
        "last_bounded_bracket": None if end is None else [end.low, end.high],
        "hysteresis": None if loop is None else _differences(loop, float(diagram.edges[-1] - diagram.edges[0])),
        "orbits": diagram.escaped.size,
        "observations": diagram.counts.sum(),
        "outside": diagram.outside.sum(),
        "value_range": diagram.edges[[0, -1]],
        **picked(diagram, "lane_steps", "run_seconds"),
        "rows": [
            {"step_size": step_size, "bounded": share, "period": None if period < 0 else period}
            for step_size, share, period in rows
        ],
    }


def seen_between(diagram: bifurcation.OrbitDiagram, flip: float, period: int) -> list[float | None]:
    """The last step size below a flip where most orbits have its period, and the first above where they have twice.

    An independent sight of it: between the two, orbits take longer than the transient to settle.
    """
    sizes, found = diagram.step_sizes, diagram.common_period
    before, after = sizes[(sizes < flip) & (found == period)], sizes[(sizes > flip) & (found == 2 * period)]
    return [before[-1] if before.size else None, after[0] if after.size else None]


def _differences(loop: bifurcation.Hysteresis, length: float) -> dict:
    """Where the two ways of a sweep ended apart."""
    gap = np.nan_to_num(loop.gap).max(axis=1)
    size = max(float(np.nan_to_num(np.abs(way)).max()) for way in (loop.up, loop.down))
    gap[gap <= _ROUNDING * np.finfo(gap.dtype).eps * size] = 0.0
    differs = gap > _DIFFERENT * length
    ends = np.flatnonzero(np.diff(np.concatenate([[False], differs, [False]]).astype(int)))
    ranges = [[float(loop.step_sizes[a]), float(loop.step_sizes[b - 1])] for a, b in ends.reshape(-1, 2)]
    return {
        "starts": loop.up.shape[1],
        "step_sizes": len(loop.step_sizes),
        "largest_gap": float(gap.max()),
        "at": float(loop.step_sizes[gap.argmax()]) if gap.any() else None,
        "share_different": float(differs.mean()),
        "different": ranges,
    }


def dataset_of(
    diagram: bifurcation.OrbitDiagram, close: bifurcation.OrbitDiagram | None, loop: bifurcation.Hysteresis | None
) -> xr.Dataset:
    """Counts, periods and escapes; the counts of the closer look; and the sweeps."""
    variables = {
        "counts": (("step_size", "bin"), diagram.counts),
        "outside": ("step_size", diagram.outside),
        "period": (("step_size", "start"), diagram.period),
        "escaped": (("step_size", "start"), diagram.escaped.astype(np.int8)),
    }
    coords = {"step_size": diagram.step_sizes, "bin": _middles(diagram.edges)}
    if close is not None:
        seen = {"value_range": close.edges[[0, -1]].tolist()}
        variables["zoom_counts"] = (("zoom_step_size", "zoom_bin"), close.counts, seen)
        coords |= {"zoom_step_size": close.step_sizes, "zoom_bin": _middles(close.edges)}
    if loop is not None:
        dims = ("swept_step_size", "swept_start", "update")
        variables |= {"up": (dims, loop.up), "down": (dims, loop.down)}
        coords["swept_step_size"] = loop.step_sizes
    return xr.Dataset(variables, coords)


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[1:] + edges[:-1]) / 2


def draw_starts(options: Bifurcation, dim: int, dtype) -> np.ndarray:
    """Random initial points `[starts, dim]`, on the diagonal or in the box."""
    axes = 1 if options.line == "diagonal" else dim
    points = sampling.box(jax.random.key(options.seed), options.starts, (options.box,) * axes, dtype=dtype)
    return np.broadcast_to(np.asarray(points), (options.starts, dim)).copy()


def observer(name: str, loss: LossFn) -> Callable:
    """What is drawn, as a function of the parameters."""
    return _OBSERVERS[name] if name in _OBSERVERS else lambda theta: loss(theta)  # noqa: PLW0108 (must be hashable)


def _diagonal(theta):
    return jnp.sum(theta) * jnp.asarray(theta.size**-0.5, theta.dtype)


def _first(theta):
    return theta[0]


def _norm(theta):
    return jnp.sqrt(sum_squares(theta))


_OBSERVERS = {"diagonal": _diagonal, "first": _first, "norm": _norm}


def seen_range(
    look: Callable, observe: Callable, step_sizes: np.ndarray, starts: np.ndarray, bins: int
) -> tuple[float, float]:
    """What some orbits at some of the step sizes show, and a little more on both sides.

    `look(step_sizes, starts)` is an orbit diagram that keeps its values.

    Raises
    ------
    ValueError
        If all of them escape.
    """
    rows = np.unique(np.linspace(0, len(step_sizes) - 1, PILOT[0]).round().astype(int))
    starts = starts[: PILOT[1]]
    values = look(step_sizes[rows], starts).values
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError(
            "every orbit escapes at every step size that was tried; lower --step-sizes, move --box, or raise "
            "--escape-radius"
        )
    usual = float(np.median(np.abs(np.asarray(jax.vmap(observe)(starts), float))))
    same = max(_SAME, _ROUNDING * float(np.finfo(starts.dtype).eps))
    return drawn_range(float(values.min()), float(values.max()), bins, usual if np.isfinite(usual) else 0.0, same)


def drawn_range(low: float, high: float, bins: int, usual: float = 0.0, same: float = _SAME) -> tuple[float, float]:
    """A little more than from low to high on both sides; where they agree, be it in 0, much more, around a bin.

    Orbits that settle on one value differ by rounding, and by what is left of their transients: structure of neither.
    Both are small against that value, or against what is `usual` for a start.

    >>> drawn_range(-1.0, 1.5, bins=4), np.round(drawn_range(0.5, 0.5 + 2e-16, bins=5), 6).tolist()
    ((-1.1, 1.6), [0.48, 0.52])
    >>> drawn_range(-1e-90, 1e-80, bins=4, usual=1.0)  # it lies in the third bin
    (-0.05, 0.03)
    """
    size = max(abs(low), abs(high), usual)
    if high - low > same * size:
        margin = 0.04 * (high - low)
        return low - margin, high + margin
    width = 0.08 * (size or 1.0)
    start = (low + high) / 2 - width * (bins // 2 + 0.5) / bins
    return start, start + width
