"""Past the critical step: where orbits end against the step size, where periods double, where bounded orbits end."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import bifurcation, figures, records, sampling
from gdstab._numerics import sum_squares
from gdstab._types import LossFn
from gdstab._validate import check_box, check_count, check_loss, check_positive, check_step_sizes
from gdstab.studies import building
from gdstab.studies import options as opt
from gdstab.studies.bifurcation import cascades
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Bifurcation, describe
from gdstab.studies.phases import SAVING, Phase, enter
from gdstab.updates import UpdateRule

_PILOT = 33, 16  # step sizes and starts that show what range to draw
_SWEPT = 500  # step sizes of the sweeps at the most
_ZOOMED = 400  # step sizes and bins of the picture of the cascade
_SEARCHED = 64  # orbits that the end of bounded orbits is sought with
_DIFFERENT = 0.05  # of the range that is drawn: sweeps that are further apart ended on different attractors
_SAME = 1e-6  # of their size: values that are nearer to each other are drawn as one
_BYTES_OF_FIGURES = 20_000_000


class Study(NamedTuple):
    """A complete run on disk, and its diagram where it was made just now."""

    record: records.Record
    diagram: bifurcation.OrbitDiagram | None


def run(options: Bifurcation, *, progress: Callable[[int, int], None] | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> small = {"step_sizes": "0.45:0.65:41", "starts": 8, "transient": 1000, "doublings": 2, "hysteresis": 0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = run(Bifurcation(**small, max_steps=1000, out=Path(folder))).record.summary
    >>> [round(step_size, 9) for step_size in summary["doublings"]]  # 1/2 and (sqrt 5 - 1) / 2
    [0.5, 0.618033989]
    """
    dtype = building.check_precision(options.precision)
    rule = building.build_rule(options)
    loss, dim = building.build_loss(options.loss)
    step_sizes = check_options(options, dtype)
    check_loss(loss, jax.ShapeDtypeStruct((dim,), dtype))
    lanes = len(step_sizes) * options.starts
    check_memory(
        starts=lanes * (dim * dtype.itemsize + 5), bins=8 * len(step_sizes) * options.bins,
        kept=_PILOT[0] * min(_PILOT[1], options.starts) * options.kept * dtype.itemsize,
    )  # fmt: skip
    record = records.begin(
        options.out,
        building.configuration(options),
        bytes_needed=len(step_sizes) * (8 * options.bins + 5 * options.starts) + _BYTES_OF_FIGURES,
        overwrite=options.overwrite,
        resume=options.resume,
    )
    if record.complete:
        return Study(record, None)
    enter(progress, "orbits")
    starts, observe = draw_starts(options, dim, dtype), observer(options.observe, loss)
    common = {"observe": observe, "escape_radius": options.escape_radius}
    value_range = options.value_range or seen_range(rule, loss, step_sizes, starts, options, common)
    diagram = bifurcation.orbit_diagram(
        rule, loss, step_sizes, starts, transient=options.transient, kept=options.kept, bins=options.bins,
        value_range=value_range, max_period=options.max_period, progress=progress, **common,
    )  # fmt: skip
    enter(progress, "doublings")
    cascade, why = climb(rule, loss, diagram, options)
    more = cascades.others(rule, loss, diagram, cascade, options)
    close = zoom(rule, loss, diagram, cascade, starts, options, common)
    enter(progress, "end of bounded orbits")
    end = find_end(rule, loss, starts[:_SEARCHED], diagram, options)
    enter(progress, "sweeps")
    loop = sweep(rule, loss, step_sizes, starts, options, common) if options.hysteresis else None
    summary = summarise(options, diagram, (cascade, why, more), end, loop)
    enter(progress, SAVING)
    provenance = records.provenance(dtype, seed=options.seed)
    record.write_dataset(_dataset(diagram, loop).assign_attrs(provenance=provenance))
    figures.save(
        figures.draw_bifurcation(diagram, cascades.marks(options, summary), close, loop), record, note=describe(options)
    )
    return Study(record.finish({**summary, "provenance": provenance}), diagram)


def phases(options: Bifurcation) -> dict[str, Phase]:
    """What a run goes through."""
    lanes = len(opt.parse_range(options.step_sizes)) * max(options.starts, 0)
    rest = dict.fromkeys(("doublings", "end of bounded orbits", "sweeps", SAVING), Phase(2))
    return {"orbits": Phase(6, lanes), **rest}


def check_options(options: Bifurcation, dtype) -> np.ndarray:
    """The step sizes; refuses what cannot be run, so that a mistake leaves no directory behind."""
    step_sizes = check_step_sizes(opt.parse_range(options.step_sizes), dtype)
    if len(step_sizes) < 2 or not (np.diff(step_sizes) > 0).all():
        raise ValueError(
            f"--step-sizes takes at least two increasing step sizes, such as 0.4:1.0:2000, but got {options.step_sizes}"
        )
    for name in ("starts", "transient", "kept", "max_period", "bins", "max_steps"):
        check_count(getattr(options, name), name)
    for name in ("doublings", "hysteresis"):
        check_count(getattr(options, name), name, least=0)
    if options.hysteresis > options.starts:
        raise ValueError(f"--hysteresis takes up to all {options.starts} --starts, but got {options.hysteresis}")
    check_box((options.box,), 1)
    if options.value_range is not None:
        check_box((options.value_range,), 1)
    check_positive(options.escape_radius, "escape_radius")
    return step_sizes


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
    rule: UpdateRule, loss: LossFn, step_sizes: np.ndarray, starts: np.ndarray, options: Bifurcation, common: dict
) -> tuple[float, float]:
    """What some orbits at some of the step sizes show, and a little more on both sides.

    Raises
    ------
    ValueError
        If all of them escape.
    """
    rows = np.unique(np.linspace(0, len(step_sizes) - 1, _PILOT[0]).round().astype(int))
    pilot = bifurcation.orbit_diagram(
        rule, loss, step_sizes[rows], starts[: _PILOT[1]], transient=options.transient, kept=options.kept,
        max_period=1, **common,
    )  # fmt: skip
    values = pilot.values[np.isfinite(pilot.values)]
    if not values.size:
        raise ValueError(
            "every orbit escapes at every step size that was tried; lower --step-sizes, move --box, or raise "
            "--escape-radius"
        )
    return drawn_range(float(values.min()), float(values.max()))


def drawn_range(low: float, high: float) -> tuple[float, float]:
    """A little more than from low to high on both sides; where they agree to six digits, much more.

    Orbits that settle on one value differ by rounding, and by what is left of their transients: structure of neither.
    """
    size = max(abs(low), abs(high))
    margin = 0.04 * (high - low if high - low > _SAME * size else size or 1.0)
    return low - margin, high + margin


def climb(
    rule: UpdateRule, loss: LossFn, diagram: bifurcation.OrbitDiagram, options: Bifurcation
) -> tuple[bifurcation.Cascade | None, str]:
    """The period doublings of the cycle that most orbits have at the smallest step size where they have any.

    With the reason why there are no more, or none.
    """
    rows = np.flatnonzero(diagram.common_period > 0)
    if not options.doublings or not rows.size:
        return None, "no orbit was found to settle on a cycle" if options.doublings else "not asked for"
    row = rows[0]
    lane = int(np.argmax(diagram.period[row] == diagram.common_period[row]))
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf[row, lane]), diagram.state)
    low, high = float(diagram.step_sizes[row]), float(diagram.step_sizes[-1])
    try:
        cascade = bifurcation.doublings(rule, loss, state, low, high, options.doublings, max_period=options.max_period)
    except ValueError as error:
        return None, str(error)
    return cascade, cascade.ended


def zoom(
    rule: UpdateRule,
    loss: LossFn,
    diagram: bifurcation.OrbitDiagram,
    cascade: bifurcation.Cascade | None,
    starts: np.ndarray,
    options: Bifurcation,
    common: dict,
) -> bifurcation.OrbitDiagram | None:
    """The cascade from its third doubling on, around the uppermost of the points that double there.

    None where there are fewer than three doublings, or the diagram does not see the cycle before the third.
    """
    if cascade is None or len(cascade.flips) < 3:
        return None
    flip, end = cascade.flips[2], cascade.accumulation
    rows = np.flatnonzero((diagram.step_sizes < flip.step_size) & (diagram.common_period == flip.period))
    if not (rows.size and end > flip.step_size):
        return None
    places = np.flatnonzero(diagram.counts[rows[-1]] > diagram.counts[rows[-1]].sum() / (4 * flip.period))
    upper = places[np.diff(places).argmax() + 1 :] if places.size > 1 else places
    low, high = diagram.edges[upper[0]], diagram.edges[upper[-1] + 1]
    width, height = end - flip.step_size, high - low
    step_sizes = np.linspace(flip.step_size - 0.4 * width, end + 0.9 * width, _ZOOMED)
    return bifurcation.orbit_diagram(
        rule, loss, step_sizes.astype(diagram.step_sizes.dtype), starts, transient=options.transient, kept=options.kept,
        bins=_ZOOMED, value_range=(low - 0.5 * height, high + 0.5 * height), max_period=options.max_period, **common,
    )  # fmt: skip


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


def sweep(
    rule: UpdateRule, loss: LossFn, step_sizes: np.ndarray, starts: np.ndarray, options: Bifurcation, common: dict
) -> bifurcation.Hysteresis:
    """Up and down through at most so many step sizes."""
    rows = np.unique(np.linspace(0, len(step_sizes) - 1, _SWEPT).round().astype(int))
    settle, kept = min(options.transient, 1000), min(options.kept, 128)
    return bifurcation.hysteresis(
        rule, loss, step_sizes[rows], starts[: options.hysteresis], settle=settle, kept=kept, **common
    )


def summarise(
    options: Bifurcation,
    diagram: bifurcation.OrbitDiagram,
    climbed: tuple[bifurcation.Cascade | None, str, list[bifurcation.Cascade]],
    end: bifurcation.LastBounded | None,
    loop: bifurcation.Hysteresis | None,
) -> dict:
    """What `summary.json` holds; null where something is not there."""
    cascade, why, more = climbed
    flips = [] if cascade is None else cascade.flips
    accumulation = math.nan if cascade is None else cascade.accumulation
    rows = zip(diagram.step_sizes, diagram.bounded, diagram.common_period, strict=True)
    return {
        "doublings": [flip.step_size for flip in flips],
        "periods": [flip.period for flip in flips],
        "seen_between": [seen_between(diagram, flip.step_size, flip.period) for flip in flips],
        "ended": why,
        "others": [
            {"doublings": other.step_sizes.tolist(), "periods": other.periods.tolist(), "ended": other.ended}
            for other in more
        ],
        "feigenbaum_ratios": [] if cascade is None else cascade.ratios.tolist(),
        "accumulation": None if math.isnan(accumulation) else accumulation,
        "last_bounded": None if end is None else end.low,
        "last_bounded_bracket": None if end is None else [end.low, end.high],
        "exact": cascades.exact(options),
        "hysteresis": None if loop is None else _differences(loop, float(diagram.edges[-1] - diagram.edges[0])),
        "orbits": int(diagram.escaped.size),
        "observations": int(diagram.counts.sum()),
        "outside": int(diagram.outside.sum()),
        "value_range": [float(diagram.edges[0]), float(diagram.edges[-1])],
        "lane_steps": diagram.lane_steps,
        "run_seconds": diagram.run_seconds,
        "rows": [
            {"step_size": float(step_size), "bounded": float(share), "period": None if period < 0 else int(period)}
            for step_size, share, period in rows
        ],
    }


def seen_between(diagram: bifurcation.OrbitDiagram, flip: float, period: int) -> list[float | None]:
    """The last step size below a flip where most orbits have its period, and the first above where they have twice.

    An independent sight of it: between the two, orbits take longer than the transient to settle.
    """
    sizes, found = diagram.step_sizes, diagram.common_period
    before, after = sizes[(sizes < flip) & (found == period)], sizes[(sizes > flip) & (found == 2 * period)]
    return [float(before[-1]) if before.size else None, float(after[0]) if after.size else None]


def _differences(loop: bifurcation.Hysteresis, length: float) -> dict:
    """Where the two ways of a sweep ended apart."""
    gap = np.where(np.isnan(loop.gap), 0.0, loop.gap).max(axis=1)
    differs = gap > _DIFFERENT * length
    ends = np.flatnonzero(np.diff(np.concatenate([[False], differs, [False]]).astype(int)))
    ranges = [[float(loop.step_sizes[a]), float(loop.step_sizes[b - 1])] for a, b in ends.reshape(-1, 2)]
    return {
        "starts": loop.up.shape[1],
        "step_sizes": len(loop.step_sizes),
        "largest_gap": float(gap.max()),
        "at": float(loop.step_sizes[gap.argmax()]),
        "share_different": float(differs.mean()),
        "different": ranges,
    }


def _dataset(diagram: bifurcation.OrbitDiagram, loop: bifurcation.Hysteresis | None) -> xr.Dataset:
    """Counts, periods and escapes; and the sweeps."""
    variables = {
        "counts": (("step_size", "bin"), diagram.counts),
        "outside": ("step_size", diagram.outside),
        "period": (("step_size", "start"), diagram.period),
        "escaped": (("step_size", "start"), diagram.escaped.astype(np.int8)),
    }
    coords = {"step_size": diagram.step_sizes, "bin": (diagram.edges[1:] + diagram.edges[:-1]) / 2}
    if loop is not None:
        dims = ("swept_step_size", "swept_start", "update")
        variables |= {"up": (dims, loop.up), "down": (dims, loop.down)}
        coords["swept_step_size"] = loop.step_sizes
    return xr.Dataset(variables, coords)
