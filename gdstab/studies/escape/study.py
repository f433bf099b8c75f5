"""Where descent on shallow ReLU networks ends, against what paper C proves; and how it leaves their saddles.

Random starts and several step sizes: every end point is put on the ladder of loss levels or counted as not converged.
Around an exact saddle: balls, a square, orbits step by step.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from gdstab import ensembles, records, sampling
from gdstab._validate import check_count, check_positive, check_step_sizes
from gdstab.basins.counting import Draw
from gdstab.outcomes import StoppingRule
from gdstab.studies import building, pieces
from gdstab.studies.escape import pictures as escape_pictures
from gdstab.studies.escape import saddle_escape, saddle_manifold
from gdstab.studies.escape import summary as escape_summary
from gdstab.studies.escape.level_clock import descent_with_clock
from gdstab.studies.escape.relu_levels import NOT_CONVERGED, SADDLES, ZERO, Ladder, classify_ends, make_ladder
from gdstab.studies.escape.saddle_escape import Saddle
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Escape, parse_range
from gdstab.studies.phases import SAVING, Phase, enter


class Study(NamedTuple):
    """A complete run on disk."""

    record: records.Record
    fresh: bool  # made just now, not read back


PHASES = {
    "descent": "random starts", "saddle": "balls around the saddle", "walks": "orbits step by step",
    "manifold": "centre-stable manifold",
}  # fmt: skip
"""Names of the kinds of work."""


class Setting(NamedTuple):
    """What the options stand for."""

    ladder: Ladder
    saddle: Saddle
    step_sizes: np.ndarray
    draw: Draw
    stopping: StoppingRule
    dtype: np.dtype


class Unit(NamedTuple):
    """A part of the work, which is written down when it is done."""

    kind: str  # descent, saddle, walks, manifold
    step: int = 0  # the place among the step sizes
    start: int = 0  # the first of the starts, and behind the last
    stop: int = 0


def run(options: Escape, *, progress: Callable[[int, int], None] | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    An interrupted run goes on with the first part that is not on disk.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> small = dict(samples=200, step_sizes="0.3", max_steps=500, max_period=None, cells=4, ball_starts=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Escape(**small, manifold_cells=0, walk_steps=500, out=Path(folder)))
    >>> study.record.summary["rows"][0]["theorem"]["saddles"]
    0
    """
    setting = prepare(options)
    check_memory(**_needs(options, setting))
    record = records.begin(
        options.out, building.configuration(options), bytes_needed=60 * total_lanes(options) + 10_000_000,
        overwrite=options.overwrite, resume=options.resume,
    )  # fmt: skip
    if record.complete:
        return Study(record, fresh=False)
    kept, parts, pace = list(record.parts()), {}, ensembles.Pace(min(options.chunk, options.samples))
    for number, unit in enumerate(units(options, kept, pace)):
        if number < len(kept):
            parts[unit] = kept[number]
            continue
        enter(progress, PHASES[unit.kind])
        parts[unit] = _WORK[unit.kind](options, setting, unit, parts, progress)
        pace.done(unit.stop - unit.start)
        record.commit(number, **parts[unit])
    enter(progress, SAVING)
    provenance = records.provenance(setting.dtype, seed=options.seed)
    descents = join_descents(options, parts)
    around = {**parts[Unit("saddle")], **{f"walk_{name}": value for name, value in parts[Unit("walks")].items()}}
    manifold = parts.get(Unit("manifold"))
    summary = escape_summary.summarise(options, setting, descents, around)
    if manifold is not None:
        summary["manifold"] = saddle_manifold.summarise(options, setting.ladder, manifold)
    record.write_dataset(to_dataset(options, setting, descents, around, manifold).assign_attrs(provenance=provenance))
    names = escape_pictures.save(options, setting, summary, around, manifold, record)
    return Study(record.finish({**summary, "figures": names, "provenance": provenance}), fresh=True)


def prepare(options: Escape) -> Setting:
    """Build and check everything, so that a mistake leaves no directory behind."""
    dtype = building.check_precision(options.precision)
    for name in ("samples", "ball_starts", "cells", "chunk", "walks", "walk_steps"):
        check_count(getattr(options, name), name)
    if options.manifold_cells == 1:
        raise ValueError("--manifold-cells takes 0, for none, or at least 2 points along each axis, but got 1")
    for name in ("spread", "saddle_step", "reach"):
        check_positive(getattr(options, name), name)
    if not options.radii or min(options.radii) <= 0:
        raise ValueError(f"--radii takes at least one radius, all of them positive, but got {options.radii}")
    if not 0 < options.band < 0.5:
        raise ValueError(f"expected --band between 0 and 0.5, got {options.band}; levels must not meet")
    building.check_tolerances(options)  # a level above zero is met by the gradient alone
    loss, dim = building.build_loss(options.loss)
    ladder = make_ladder(loss, options.rtol)
    names = ("grad_tol", "escape_radius", "max_steps", "max_period")
    stopping = StoppingRule(loss_tol=ladder.zero, **{name: getattr(options, name) for name in names})
    key = jax.random.key(options.seed)
    if options.distribution == "gaussian":
        source = sampling.RandomSource.gaussian(key, options.samples, dim, options.spread, dtype=dtype)
    else:
        box = ((-options.spread, options.spread),) * dim
        source = sampling.RandomSource.box(key, options.samples, box, dtype=dtype)
    if saddle_manifold.wanted(options):
        saddle_manifold.saddle(options, ladder)  # refuses words that make none
    step_sizes = np.atleast_1d(check_step_sizes(parse_range(options.step_sizes), dtype))
    return Setting(ladder, saddle_escape.find_saddle(options, ladder), step_sizes, Draw(source), stopping, dtype)


def _needs(options: Escape, setting: Setting) -> dict[str, int]:
    """Bytes that each option makes large, at the least."""
    point = setting.saddle.theta.size * setting.dtype.itemsize
    rungs = len(setting.ladder.values)
    return {
        "samples": total_lanes(options) * (24 + 4 * rungs), "chunk": options.chunk * point,
        "cells": options.cells**2 * point, "ball_starts": len(options.radii) * options.ball_starts * point,
        "walk_steps": (options.walks * rungs + len(options.radii)) * options.walk_steps * point,
        "manifold_cells": options.manifold_cells**2 * point,
    }  # fmt: skip


def units(options: Escape, kept: Sequence[dict], pace: ensembles.Pace) -> Iterator[Unit]:
    """The parts of the work, in order: as they were cut before, then as `pace` says."""
    lengths = iter([len(part["level"]) for part in kept if "level" in part])
    for step in range(len(parse_range(options.step_sizes))):
        yield from (Unit("descent", step, *span) for span in pieces.cut(options.samples, lengths, pace))
    yield from (Unit("saddle"), Unit("walks"))
    if saddle_manifold.wanted(options):
        yield Unit("manifold")


def phases(options: Escape) -> dict[str, Phase]:
    """What a run goes through."""
    kinds = ("saddle", "walks", "manifold") if saddle_manifold.wanted(options) else ("saddle", "walks")
    others = {PHASES[kind]: Phase(3) for kind in kinds}
    return {PHASES["descent"]: Phase(8, total_lanes(options)), **others, SAVING: Phase(2)}


def total_lanes(options: Escape) -> int:
    """Orbits of the random starts."""
    return options.samples * len(parse_range(options.step_sizes))


#
# The parts
#


def _descent(options: Escape, setting: Setting, unit: Unit, _, progress) -> dict:
    """Some random starts with one step size, run to their ends, and these classified."""
    points = setting.draw(unit.start, unit.stop)
    rule = descent_with_clock(tuple(setting.ladder.values.tolist()), options.band)
    tile = pieces.run_piece(
        rule, setting.ladder.loss, points, min(options.chunk, options.samples), float(setting.step_sizes[unit.step]),
        setting.stopping, keep=("state", "loss"), progress=progress,
    )  # fmt: skip
    ends = classify_ends(setting.ladder, tile.state.theta, tile.loss, tile.outcome)
    found = {**ends._asdict(), "loss": tile.loss, "steps": tile.steps, "near": tile.state.near}
    return pass_saddles(setting, unit, rule, tile.state.theta, {**found, "passed": np.zeros(len(points), np.int8)})


def pass_saddles(setting: Setting, unit: Unit, rule, theta: np.ndarray, found: dict) -> dict:
    """Let those that came to rest at a saddle go on without `grad_tol`: a passage can be slower than any tolerance.

    Who comes to rest elsewhere counts there, and as `passed`; who does not is left as it was found, at the saddle.
    """
    some = np.flatnonzero(np.isin(found["kind"], SADDLES))
    if not some.size:
        return found
    stopping = dataclasses.replace(setting.stopping, grad_tol=0.0)
    step_size = float(setting.step_sizes[unit.step])
    more = ensembles.run(rule, setting.ladder.loss, theta[some], step_size, stopping, keep=("state", "loss"))
    ends = classify_ends(setting.ladder, more.state.theta, more.loss, more.outcome)
    left = (ends.level != NOT_CONVERGED) & ~np.isin(ends.kind, SADDLES)
    some, added = some[left], {"steps": more.steps, "near": more.state.near}
    for name, value in {**ends._asdict(), "loss": more.loss}.items():
        found[name][some] = value[left]
    for name, value in added.items():
        found[name][some] += value[left]
    found["passed"][some] = 1
    return found


def _saddle(options: Escape, setting: Setting, *_) -> dict:
    """Balls and a square around the saddle."""
    balls, square = saddle_escape.leave(
        options, setting.ladder, setting.saddle, setting.stopping, setting.dtype
    )  # fmt: skip
    named = (("balls", balls), ("square", square))
    return {f"{place}_{name}": value for place, left in named for name, value in left._asdict().items()}


def _walks(options: Escape, setting: Setting, _, parts: dict[Unit, dict], *__) -> dict:
    """The random starts of the first step size that stayed longest, and one from each ball; every update of them."""
    first = pieces.joined([part for unit, part in parts.items() if (unit.kind, unit.step) == ("descent", 0)])
    level, near = first["level"], first["near"]
    arrived = np.flatnonzero(level == ZERO)
    longest = [
        arrived[np.argsort(-near[arrived, rung], kind="stable")[: options.walks]] for rung in range(near.shape[1])
    ]
    chosen = np.unique(longest) if arrived.size else np.zeros(1, np.int64)
    far = np.concatenate([setting.draw(int(start), int(start) + 1) for start in chosen])
    offsets = saddle_escape.ball_offsets(options, setting.saddle.theta.size, 1, setting.dtype)[:, 0]
    close = (setting.saddle.theta + offsets).astype(setting.dtype)
    step_sizes = np.repeat([float(setting.step_sizes[0]), options.saddle_step], [len(far), len(close)])
    walks = saddle_escape.walk(setting.ladder, np.concatenate([far, close]), step_sizes, options.walk_steps)._asdict()
    named = (("far", slice(len(far))), ("close", slice(len(far), None)))
    return {"starts": chosen} | {f"{kind}_{name}": walks[name][some] for kind, some in named for name in walks}


def _manifold(options: Escape, setting: Setting, *_) -> dict:
    """The centre-stable manifold of a saddle, which few descents come near."""
    return saddle_manifold.compute(options, setting.ladder, setting.dtype)


_WORK = {"descent": _descent, "saddle": _saddle, "walks": _walks, "manifold": _manifold}


#
# What comes of them
#


def join_descents(options: Escape, parts: dict) -> dict[str, np.ndarray]:
    """The ends of all random starts, `[steps, samples]`, and `near` `[steps, samples, levels]`."""
    found = pieces.joined([part for unit, part in parts.items() if unit.kind == "descent"])
    shape = len(parse_range(options.step_sizes)), options.samples
    return {name: value.reshape(*shape, *value.shape[1:]) for name, value in found.items()}


def to_dataset(options: Escape, setting: Setting, descents: dict, around: dict, manifold: dict | None) -> xr.Dataset:
    """Every end on the dimensions step_size and start; what was seen around the saddle; the walks."""
    ends = ("step_size", "start")
    variables = {name: ((*ends, "rung") if name == "near" else ends, value) for name, value in descents.items()}
    places = {"balls": ("radius", "ball_start"), "square": ("first", "second"), "walk_starts": ("walk",),
              "walk_far": ("walk", "update", "parameter"), "walk_close": ("radius", "update", "parameter")}  # fmt: skip
    for name, value in around.items():
        dims = next(dims for place, dims in places.items() if name.startswith(place))
        variables[name] = (dims[: value.ndim], value)
    for name, value in (manifold or {}).items():
        variables[f"manifold_{name}"] = (tuple(f"manifold_{name}_{axis}" for axis in range(value.ndim)), value)
    variables["saddle"] = (("parameter",), setting.saddle.theta)
    variables["directions"] = (("direction", "parameter"), setting.saddle.directions)
    variables["rung_loss"] = (("rung",), setting.ladder.values)
    coords = {
        "step_size": setting.step_sizes, "radius": list(options.radii), "rung": list(setting.ladder.kinks),
    }  # fmt: skip
    codes = "breakpoints; -1 loss zero, -2 off the ladder, -3 not converged, -4 cycling, -5 diverged"
    return xr.Dataset(variables, coords, {"level": codes})
