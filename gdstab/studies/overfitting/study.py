"""The overfitting conjecture of paper B: from almost every start of a deep linear network, a global minimum is reached.

Shares of the starts that end in each stratum, for descent and for gradient flow; the sets of measure zero from which
saddles are reached, and what happens next to them; how long orbits stay near each saddle.
"""

import itertools
from typing import NamedTuple

import numpy as np
import xarray as xr

from gdstab import ensembles, updates
from gdstab._numerics import check_precision
from gdstab._validate import check_count
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.studies import building
from gdstab.studies.overfitting import Overfitting, endings, lingering, units
from gdstab.studies.overfitting.endings import GONE, UNDECIDED, UNIDENTIFIED, Target
from gdstab.studies.overfitting.units import Unit, network_widths, phase_of, stair_spread, starts, step_size, summarise
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.work import Needs, Work, cut, joined, run_piece

NUM_CURVES = 6
"""Orbits of the staircase."""


class Setting(NamedTuple):
    """What the options stand for."""

    problems: list[list[Target]]  # for every network its targets
    dtype: np.dtype
    needs: Needs


def prepare(options: Overfitting) -> Setting:
    """Draw the targets and check everything."""
    dtype = check_precision(options.precision)
    for name in ("starts", "flow_starts"):
        check_count(getattr(options, name), name, least=options.datasets)
    _stopping(options)
    building.check_tolerances(options)  # saddles are met by the gradient alone
    problems = [
        [endings.draw_target(widths, options.seed, number, dtype) for number in range(options.datasets)]
        for widths in network_widths(options)
    ]
    return Setting(problems, dtype, Needs(_memory(options, dtype), 60 * total_lanes(options)))


def phases(options: Overfitting) -> dict[str, Phase]:
    """What a run goes through: four phases for every network."""
    lanes = total_lanes(options) // max(len(options.hidden_layers), 1)
    found = {phase_of(options, unit): Phase(2) for unit in units.units(options)}
    found |= {name: Phase(4, lanes) for name in found if units.RANDOM in name}
    return {**found, SAVING: Phase(1)}


def measure(options: Overfitting, setting: Setting, work: Work):
    """Do all parts that are not on disk.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gdstab.studies import run
    >>> small = dict(hidden_layers=(1,), datasets=1, starts=50, flow_starts=4, special_starts=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = Overfitting(**small, lingering_spreads=(0.1,), lingering_starts=2, out=Path(folder))
    ...     study = run(options)
    >>> study.record.summary["rows"][0]["counts"]["{1,2,3}"]
    50
    """
    parts = gather(options, setting, work)
    return to_dataset(options, setting.problems, parts), summarise(options, setting.problems, parts)


def gather(options: Overfitting, setting: Setting, work: Work) -> dict[Unit, dict]:
    """All parts, those of a descent joined; what is not on disk is done, and written down."""
    kept, keep = work.parts()
    parts, number, known, total = {}, 0, len(kept), options.starts // options.datasets
    for unit in units.units(options):
        found, pace, target = [], ensembles.Pace(total), setting.problems[unit.network][unit.data]
        lengths = (len(part["stratum"]) for part in itertools.islice(kept, number, max(known, number)))
        for span in cut(total, lengths, pace) if unit.kind == "descent" else [(0, 0)]:
            if number >= known:
                work.enter(phase_of(options, unit))
                kept.append(_WORK[unit.kind](options, target, unit._replace(span=span), setting.dtype, work.progress))
                pace.done(span[1] - span[0])
                keep(kept[number])
            found.append(kept[number])
            number += 1
        parts[unit] = joined(found)
    return parts


def total_lanes(options: Overfitting) -> int:
    """Orbits of the random starts."""
    per_target = options.starts // max(options.datasets, 1) + options.flow_starts // max(options.datasets, 1)
    return per_target * options.datasets * len(options.hidden_layers)


def _memory(options: Overfitting, dtype) -> dict[str, int]:
    """Bytes that each option makes large, at the least: points of the largest network, and where they end."""
    depth = max(options.hidden_layers)
    entries = options.hidden * (options.inputs + options.outputs) + (depth - 1) * options.hidden**2
    lanes = {name: getattr(options, name) // options.datasets for name in ("starts", "flow_starts")}
    lanes |= {name: getattr(options, name) for name in ("special_starts", "lingering_starts")}
    return {name: 2 * number * entries * dtype.itemsize for name, number in lanes.items()}


def _stopping(options: Overfitting) -> StoppingRule:
    names = ("loss_tol", "grad_tol", "escape_radius", "max_steps")
    return StoppingRule(**{name: getattr(options, name) for name in names})


def _descend(options, target, theta, network, size, progress=None) -> dict:
    """Run descent to its end, as some of `size` starts: stratum, outcome, loss and steps per start."""
    step, rule, keep = step_size(options, target, network), updates.gradient_descent(), ("theta", "loss")
    ends = run_piece(rule, target.loss, theta, size, step, _stopping(options), keep=keep, progress=progress)
    stratum, disagrees = endings.identify(target, ends.theta, ends.loss, ends.outcome)
    return {
        "stratum": stratum, "disagrees": disagrees, "outcome": ends.outcome, "loss": ends.loss, "steps": ends.steps,
    }  # fmt: skip


def _descent(options, target, unit, dtype, progress) -> dict:
    total = options.starts // options.datasets
    theta = [layer[slice(*unit.span)] for layer in starts(options, unit, total, options.spread, dtype)]
    return _descend(options, target, tuple(theta), unit.network, total, progress)


def _flow(options, target, unit, dtype, progress) -> dict:
    theta = starts(options, unit, options.flow_starts // options.datasets, options.spread, dtype)
    walks = lingering.walk(target, theta, options.time, options.flow_tol)
    if progress is not None:
        progress(len(walks.loss), 0)
    stratum, disagrees = endings.identify(target, walks.theta, walks.loss[:, -1], walks.outcome)
    return {"stratum": stratum, "disagrees": disagrees, "outcome": walks.outcome, "loss": walks.loss[:, -1],
            "time": walks.time}  # fmt: skip


def _special(options, target, unit, dtype, _) -> dict:
    """Starts in the sets that lead to saddles, and `nudge` away from them; `[families, starts]`, all run together."""
    target, sets = units.families(options, target, unit.network, dtype)
    widths = network_widths(options)[unit.network]
    inside = tuple(np.concatenate(layers) for layers in zip(*(family.theta for family in sets), strict=True))
    noise = endings.random_starts(options.seed, (99, unit.network), len(inside[0]), widths, options.nudge, dtype)
    nudged = tuple(layer + more for layer, more in zip(inside, noise, strict=True))
    both = tuple(np.concatenate(layers) for layers in zip(inside, nudged, strict=True))
    stratum = _descend(options, target, both, unit.network, len(both[0]))["stratum"].reshape(2, len(sets), -1)
    return {"stratum": stratum[0], "nudged": stratum[1]}


def _linger(options, target, unit, dtype, _) -> dict:
    spread = options.lingering_spreads[unit.spread]
    theta = starts(options, unit, options.lingering_starts, spread, dtype)
    walks = lingering.walk(target, theta, options.time, options.flow_tol)
    spent, least = lingering.time_near(walks, target.values, options.band)
    stratum, _ = endings.identify(target, walks.theta, walks.loss[:, -1], walks.outcome)
    return {"spent": spent, "gradient": least, "stratum": stratum}


def _staircase(options, target, unit, dtype, _) -> dict:
    theta = starts(options, unit, NUM_CURVES, stair_spread(options, unit.network), dtype)
    walks = lingering.walk(target, theta, options.time, options.flow_tol)
    return {"times": walks.times, "loss": walks.loss}


_WORK = {"descent": _descent, "flow": _flow, "special": _special, "lingering": _linger, "staircase": _staircase}


def to_dataset(options: Overfitting, problems: list, parts: dict) -> xr.Dataset:
    """All ends, on the dimensions network, data, and start."""
    networks, data = range(len(options.hidden_layers)), range(options.datasets)
    ends = ("network", "data")
    variables = {}
    for kind, names in {"descent": ("outcome", "stratum", "loss", "steps"), "flow": ("outcome", "stratum", "loss",
                        "time")}.items():  # fmt: skip
        for name in names:
            block = [[parts[Unit(kind, i, j)][name] for j in data] for i in networks]
            variables[f"{kind}_{name}"] = ((*ends, f"{kind}_start"), np.array(block))
    spreads = range(len(options.lingering_spreads))
    for name in ("spent", "gradient"):
        block = [[[parts[Unit("lingering", i, j, k)][name] for k in spreads] for j in data] for i in networks]
        variables[f"lingering_{name}"] = ((*ends, "spread", "orbit", "level"), np.array(block))
    stairs = [parts[Unit("staircase", i, 0)] for i in networks]
    variables["staircase_loss"] = (("network", "curve", "time"), np.array([part["loss"] for part in stairs]))
    first = problems[0]
    variables["singular_values"] = (("data", "triplet"), np.array([target.singular_values for target in first]))
    variables["critical_values"] = (("data", "level"), np.array([target.values for target in first]))
    coords = {
        "network": list(options.hidden_layers), "spread": list(options.lingering_spreads),
        "time": stairs[0]["times"],
    }  # fmt: skip
    codes = f"number of the level; {UNIDENTIFIED} unidentified, {UNDECIDED} undecided, {GONE} diverged"
    levels = " ".join(endings.label(fitted) for fitted in first[0].fitted)
    return xr.Dataset(
        variables, coords, {"stratum": codes, "levels": levels, "outcomes": " ".join(v.name.lower() for v in Outcome)}
    )
