"""Where descent on shallow ReLU networks ends, against what paper C proves; and how it leaves their saddles.

Random starts and several step sizes: every end point is put on the ladder of loss levels or counted as not converged.
Around an exact saddle: balls, a square, orbits step by step.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from gdstab import ensembles, sampling
from gdstab._numerics import check_precision
from gdstab._validate import check_step_sizes
from gdstab.basins.counting import Draw
from gdstab.outcomes import StoppingRule
from gdstab.studies import building
from gdstab.studies.escape import Escape, saddle_escape, saddle_manifold
from gdstab.studies.escape.relu_levels import (
    NOT_CONVERGED,
    SADDLES,
    ZERO,
    Ladder,
    classify_ends,
    descent_with_clock,
    make_ladder,
)
from gdstab.studies.escape.saddle_escape import Saddle
from gdstab.studies.escape.summary import summarise
from gdstab.studies.options import parse_range
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.work import Needs, Work, cut, joined, run_piece

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
    needs: Needs


class Unit(NamedTuple):
    """A part of the work, which is written down when it is done."""

    kind: str  # descent, saddle, walks
    step: int = 0  # the place among the step sizes
    start: int = 0  # the first of the starts, and behind the last
    stop: int = 0


def prepare(options: Escape) -> Setting:
    """Build and check everything, so that a mistake leaves no directory behind."""
    dtype = check_precision(options.precision)
    if options.manifold_cells == 1:
        raise ValueError("--manifold-cells takes 0, for none, or at least 2 points along each axis, but got 1")
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
    saddle = saddle_escape.find_saddle(options, ladder)
    return Setting(ladder, saddle, step_sizes, Draw(source), stopping, dtype, _needs(options, ladder, dtype))


def _needs(options: Escape, ladder: Ladder, dtype: np.dtype) -> Needs:
    """Bytes that each option makes large, at the least."""
    point, rungs = (3 * ladder.loss.neurons + 1) * dtype.itemsize, len(ladder.values)
    memory = {
        "samples": total_lanes(options) * (24 + 4 * rungs), "chunk": options.chunk * point,
        "cells": options.cells**2 * point, "ball_starts": len(options.radii) * options.ball_starts * point,
        "walk_steps": (options.walks * rungs + len(options.radii)) * options.walk_steps * point,
        "manifold_cells": options.manifold_cells**2 * point,
    }  # fmt: skip
    return Needs(memory, 60 * total_lanes(options))


def phases(options: Escape) -> dict[str, Phase]:
    """What a run goes through."""
    found = {
        PHASES["descent"]: Phase(8, total_lanes(options)), PHASES["saddle"]: Phase(3, _around(options)),
        PHASES["walks"]: Phase(3),
    }  # fmt: skip
    return found | ({PHASES["manifold"]: Phase(3)} if saddle_manifold.wanted(options) else {}) | {SAVING: Phase(2)}


def total_lanes(options: Escape) -> int:
    """Orbits of the random starts."""
    return options.samples * len(parse_range(options.step_sizes))


def _around(options: Escape) -> int:
    """Orbits that start around the saddle."""
    return len(options.radii) * options.ball_starts + options.cells**2


def measure(options: Escape, setting: Setting, work: Work):
    """All parts of the work, each kept when it is done; then what comes of them."""
    kept, keep = work.parts()
    rest = iter(kept)

    def part(make: Callable[[], dict]) -> dict:
        found = next(rest, None)
        if found is None:
            found = make()
            keep(found)
        return found

    parts: dict[Unit, dict] = {}
    for unit, pace in units(options, kept):
        parts[unit] = part(partial(_make, options, setting, unit, parts, work, pace))
    manifold = None
    if saddle_manifold.wanted(options):
        work.enter(PHASES["manifold"])
        manifold = saddle_manifold.compute(options, setting.ladder, setting.dtype, part)
    descents = join_descents(options, parts)
    around = saddle_escape.apart(options, joined(_of("saddle", parts)))
    around |= {f"walk_{name}": value for name, value in parts[Unit("walks")].items()}
    summary = summarise(options, setting, descents, around) | {"figures": ["figure", "network"]}
    if manifold is not None:
        summary["manifold"] = saddle_manifold.summarise(options, setting.ladder, manifold)
        summary["figures"].append("manifold")
    return to_dataset(options, setting, descents, around, manifold), summary


def _make(options: Escape, setting: Setting, unit: Unit, parts: dict, work: Work, pace: ensembles.Pace) -> dict:
    work.enter(PHASES[unit.kind])
    found = _WORK[unit.kind](options, setting, unit, parts, work.progress)
    pace.done(unit.stop - unit.start)
    return found


def units(options: Escape, kept: Sequence[dict]) -> Iterator[tuple[Unit, ensembles.Pace]]:
    """The parts of the work, in order, cut as they were before, then as a pace says, which learns from those done."""
    pace = ensembles.Pace(_size(options, options.samples))
    lengths = iter([len(part["near"]) for part in kept if "near" in part])
    for step in range(len(parse_range(options.step_sizes))):
        yield from ((Unit("descent", step, *span), pace) for span in cut(options.samples, lengths, pace))
    pace = ensembles.Pace(_size(options, _around(options)))
    lengths = iter([len(part["stay"]) for part in kept if "stay" in part])
    yield from ((Unit("saddle", 0, *span), pace) for span in cut(_around(options), lengths, pace))
    yield Unit("walks"), pace


def _size(options: Escape, orbits: int) -> int:
    """Orbits that one program runs."""
    return min(options.chunk, orbits)


def _of(kind: str, parts: dict[Unit, dict]) -> list[dict]:
    return [part for unit, part in parts.items() if unit.kind == kind]


#
# The parts
#


def _descent(options: Escape, setting: Setting, unit: Unit, _, progress) -> dict:
    """Some random starts with one step size, run to their ends, and these classified."""
    points = setting.draw(unit.start, unit.stop)
    rule = descent_with_clock(tuple(setting.ladder.values.tolist()), options.band)
    tile = run_piece(
        rule, setting.ladder.loss, points, _size(options, options.samples), float(setting.step_sizes[unit.step]),
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


def _saddle(options: Escape, setting: Setting, unit: Unit, _, progress) -> dict:
    """Some of the orbits from balls and from a square around the saddle."""
    points = saddle_escape.starts(options, setting.saddle, setting.dtype)[unit.start : unit.stop]
    size = _size(options, _around(options))
    left = saddle_escape.leave(options, setting.ladder, setting.saddle, setting.stopping, points, size, progress)
    return left._asdict()


def _walks(options: Escape, setting: Setting, _, parts: dict[Unit, dict], *__) -> dict:
    """The random starts of the first step size that stayed longest, and one from each ball; every update of them."""
    first = joined([part for unit, part in parts.items() if (unit.kind, unit.step) == ("descent", 0)])
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


_WORK = {"descent": _descent, "saddle": _saddle, "walks": _walks}


#
# What comes of them
#


def join_descents(options: Escape, parts: dict) -> dict[str, np.ndarray]:
    """The ends of all random starts, `[steps, samples]`, and `near` `[steps, samples, levels]`."""
    found = joined(_of("descent", parts))
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
