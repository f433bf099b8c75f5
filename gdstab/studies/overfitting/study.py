"""The overfitting conjecture of paper B: from almost every start of a deep linear network, a global minimum is reached.

Shares of the starts that end in each stratum, for descent and for gradient flow; the sets of measure zero from which
saddles are reached, and what happens next to them; how long orbits stay near each saddle.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from gdstab import ensembles, estimators, figures, records, updates
from gdstab._numerics import check_precision
from gdstab._validate import check_count, check_positive
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.studies import building, pieces
from gdstab.studies.memory import check_memory
from gdstab.studies.options import Overfitting, describe
from gdstab.studies.overfitting import endings, lingering
from gdstab.studies.overfitting.endings import GONE, UNDECIDED, UNIDENTIFIED, Target
from gdstab.studies.phases import SAVING, Phase, enter
from gdstab.theory import linear

NUM_CURVES = 6
"""Orbits of the staircase."""
_RANDOM = "random starts"


class Study(NamedTuple):
    """A complete run on disk."""

    record: records.Record
    fresh: bool  # made just now, not read back


class Unit(NamedTuple):
    """A part of the work, which is written down when it is done."""

    kind: str  # descent, flow, special, lingering, staircase
    network: int  # its place among the numbers of hidden layers
    data: int  # the number of the target
    spread: int = 0  # the place among the spreads of lingering
    span: tuple[int, int] = (0, 0)  # of the random starts, where they are cut into pieces


def run(options: Overfitting, *, progress: Callable[[int, int], None] | None = None) -> Study:
    """Run the study, or read it back where a complete run of the same configuration is there.

    An interrupted run goes on with the first part that is not on disk.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> small = dict(hidden_layers=(1,), datasets=1, starts=50, flow_starts=4, special_starts=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = Overfitting(**small, lingering_spreads=(0.1,), lingering_starts=2, out=Path(folder))
    ...     study = run(options)
    >>> study.record.summary["rows"][0]["counts"]["{1,2,3}"]
    50
    """
    dtype = check_precision(options.precision)
    _check(options)
    building.check_tolerances(options)  # saddles are met by the gradient alone
    problems = [[endings.draw_target(widths, options.seed, n, dtype) for n in range(options.datasets)]
                for widths in network_widths(options)]  # fmt: skip
    check_memory(**_needs(options, dtype))
    record = records.begin(
        options.out, building.configuration(options), bytes_needed=60 * total_lanes(options) + 10_000_000,
        overwrite=options.overwrite, resume=options.resume,
    )  # fmt: skip
    if record.complete:
        return Study(record, fresh=False)
    parts = work(options, problems, record, dtype, progress)
    enter(progress, SAVING)
    provenance = records.provenance(dtype, seed=options.seed)
    dataset = to_dataset(options, problems, parts)
    record.write_dataset(dataset.assign_attrs(provenance=provenance))
    summary = summarise(options, problems, parts)
    figures.save(
        figures.draw_overfitting(staircases(options, problems, parts), summary["lingering"]),
        record,
        note=describe(options),
    )
    return Study(record.finish({**summary, "provenance": provenance}), fresh=True)


def work(options: Overfitting, problems: list, record: records.Record, dtype, progress) -> dict[Unit, dict]:
    """All parts, those of a descent joined; what is not on disk is done, and written down."""
    kept, parts, number, total = list(record.parts()), {}, 0, options.starts // options.datasets
    known = len(kept)
    for unit in units(options):
        found, pace = [], ensembles.Pace(total)
        lengths = (len(part["stratum"]) for part in itertools.islice(kept, number, max(known, number)))
        for span in pieces.cut(total, lengths, pace) if unit.kind == "descent" else [(0, 0)]:
            if number >= known:
                enter(progress, phase_of(options, unit))
                some = unit._replace(span=span)
                kept.append(_WORK[unit.kind](options, problems[unit.network][unit.data], some, dtype, progress))
                pace.done(span[1] - span[0])
                record.commit(number, **kept[number])
            found.append(kept[number])
            number += 1
        parts[unit] = pieces.joined(found)
    return parts


def network_widths(options: Overfitting) -> list[tuple[int, ...]]:
    """The widths of each network, from inputs to outputs."""
    return [(options.inputs, *[options.hidden] * number, options.outputs) for number in options.hidden_layers]


def units(options: Overfitting) -> Iterator[Unit]:
    """The parts of the work, in order."""
    for network in range(len(options.hidden_layers)):
        yield from (Unit(kind, network, data) for data in range(options.datasets) for kind in ("descent", "flow"))
        yield Unit("special", network, 0)
        yield Unit("staircase", network, 0)
        for data in range(options.datasets):
            yield from (Unit("lingering", network, data, spread) for spread in range(len(options.lingering_spreads)))


def phases(options: Overfitting) -> dict[str, Phase]:
    """What a run goes through: four phases for every network."""
    lanes = total_lanes(options) // max(len(options.hidden_layers), 1)
    found = {phase_of(options, unit): Phase(2) for unit in units(options)}
    found |= {name: Phase(4, lanes) for name in found if _RANDOM in name}
    return {**found, SAVING: Phase(1)}


def phase_of(options: Overfitting, unit: Unit) -> str:
    """The phase that a part of the work belongs to."""
    names = {"special": "starts in null sets", "staircase": "staircase", "lingering": "time near saddles"}
    return f"{options.hidden_layers[unit.network]} hidden: {names.get(unit.kind, _RANDOM)}"


def total_lanes(options: Overfitting) -> int:
    """Orbits of the random starts."""
    per_target = options.starts // max(options.datasets, 1) + options.flow_starts // max(options.datasets, 1)
    return per_target * options.datasets * len(options.hidden_layers)


def _needs(options: Overfitting, dtype) -> dict[str, int]:
    """Bytes that each option makes large, at the least: points of the largest network, and where they end."""
    depth = max(options.hidden_layers)
    entries = options.hidden * (options.inputs + options.outputs) + (depth - 1) * options.hidden**2
    lanes = {name: getattr(options, name) // options.datasets for name in ("starts", "flow_starts")}
    lanes |= {name: getattr(options, name) for name in ("special_starts", "lingering_starts")}
    return {name: 2 * number * entries * dtype.itemsize for name, number in lanes.items()}


def _check(options: Overfitting) -> None:
    """So that a mistake leaves no directory behind."""
    for name in ("inputs", "hidden", "outputs", "datasets", "special_starts", "lingering_starts"):
        check_count(getattr(options, name), name)
    for name in ("starts", "flow_starts"):
        check_count(getattr(options, name), name, least=options.datasets)
    for number in options.hidden_layers:
        check_count(number, "hidden_layers")
    for name in ("spread", "step_share", "time", "flow_tol"):
        check_positive(getattr(options, name), name)
    for spread in options.lingering_spreads:
        check_positive(spread, "lingering_spreads")
    if not (options.hidden_layers and options.lingering_spreads and 0 < options.band < 0.5):
        raise ValueError("expected at least one of --hidden-layers and --lingering-spreads, and --band below 0.5")
    _stopping(options)


#
# The parts
#


def _stopping(options: Overfitting) -> StoppingRule:
    names = ("loss_tol", "grad_tol", "escape_radius", "max_steps")
    return StoppingRule(**{name: getattr(options, name) for name in names})


def step_size(options: Overfitting, target: Target, network: int) -> float:
    r"""The share of $\eta_C = 2 / \min_M \lambda_{max}$ that descent takes."""
    depth = options.hidden_layers[network] + 1
    return options.step_share * 2 / linear.flattest_sharpness(float(target.singular_values[0]), depth)


def _descend(options, target, theta, network, size, progress=None) -> dict:
    """Run descent to its end, as some of `size` starts: stratum, outcome, loss and steps per start."""
    step, rule, keep = step_size(options, target, network), updates.gradient_descent(), ("theta", "loss")
    ends = pieces.run_piece(rule, target.loss, theta, size, step, _stopping(options), keep=keep, progress=progress)
    stratum, disagrees = endings.identify(target, ends.theta, ends.loss, ends.outcome)
    return {
        "stratum": stratum, "disagrees": disagrees, "outcome": ends.outcome, "loss": ends.loss, "steps": ends.steps,
    }  # fmt: skip


def _starts(options, unit, num, spread, dtype):
    """Random starts of a unit: other ones for each network, target, kind and spread."""
    name = (unit.network, unit.data, list(_WORK).index(unit.kind), unit.spread)
    return endings.random_starts(options.seed, name, num, network_widths(options)[unit.network], spread, dtype)


def _descent(options, target, unit, dtype, progress) -> dict:
    total = options.starts // options.datasets
    theta = [layer[slice(*unit.span)] for layer in _starts(options, unit, total, options.spread, dtype)]
    return _descend(options, target, tuple(theta), unit.network, total, progress)


def _flow(options, target, unit, dtype, progress) -> dict:
    theta = _starts(options, unit, options.flow_starts // options.datasets, options.spread, dtype)
    walks = lingering.walk(target, theta, options.time, options.flow_tol)
    if progress is not None:
        progress(len(walks.loss), 0)
    stratum, disagrees = endings.identify(target, walks.theta, walks.loss[:, -1], walks.outcome)
    return {"stratum": stratum, "disagrees": disagrees, "outcome": walks.outcome, "loss": walks.loss[:, -1],
            "time": walks.time}  # fmt: skip


def _special(options, target, unit, dtype, _) -> dict:
    """Starts in the sets that lead to saddles, and `nudge` away from them; `[families, starts]`, all run together."""
    target, families = _families(options, target, unit.network, dtype)
    widths = network_widths(options)[unit.network]
    inside = tuple(np.concatenate(layers) for layers in zip(*(family.theta for family in families), strict=True))
    noise = endings.random_starts(options.seed, (99, unit.network), len(inside[0]), widths, options.nudge, dtype)
    nudged = tuple(layer + more for layer, more in zip(inside, noise, strict=True))
    both = tuple(np.concatenate(layers) for layers in zip(inside, nudged, strict=True))
    stratum = _descend(options, target, both, unit.network, len(both[0]))["stratum"].reshape(2, len(families), -1)
    return {"stratum": stratum[0], "nudged": stratum[1]}


def _families(options, target, network, dtype):
    """The target in the coordinates of its singular vectors, and the special sets of starts."""
    widths = network_widths(options)[network]
    families = endings.special_families(
        options.seed, (98, network), options.special_starts, widths, options.spread, dtype
    )
    return endings.diagonal_target(target, widths, dtype), list(families)


def _linger(options, target, unit, dtype, _) -> dict:
    spread = options.lingering_spreads[unit.spread]
    theta = _starts(options, unit, options.lingering_starts, spread, dtype)
    walks = lingering.walk(target, theta, options.time, options.flow_tol)
    spent, least = lingering.time_near(walks, target.values, options.band)
    stratum, _ = endings.identify(target, walks.theta, walks.loss[:, -1], walks.outcome)
    return {"spent": spent, "gradient": least, "stratum": stratum}


def _staircase(options, target, unit, dtype, _) -> dict:
    theta = _starts(options, unit, NUM_CURVES, stair_spread(options, unit.network), dtype)
    walks = lingering.walk(target, theta, options.time, options.flow_tol)
    return {"times": walks.times, "loss": walks.loss}


def stair_spread(options: Overfitting, network: int) -> float:
    """How small the orbits of the staircase start: the smaller, the fewer layers, since fewer layers wait less."""
    return min(options.lingering_spreads) ** (2 / options.hidden_layers[network])


_WORK = {"descent": _descent, "flow": _flow, "special": _special, "lingering": _linger, "staircase": _staircase}


#
# What comes of them
#


def summarise(options: Overfitting, problems: list, parts: dict) -> dict:
    """`rows` for random starts, `special` for those in sets of measure zero, `lingering` near the saddles."""
    rows, special, near = [], [], []
    for unit, part in parts.items():
        target, hidden = problems[unit.network][unit.data], options.hidden_layers[unit.network]
        head = {"hidden_layers": hidden, "data": unit.data}
        if unit.kind in {"descent", "flow"}:
            step = step_size(options, target, unit.network) if unit.kind == "descent" else None
            numbers = {"singular_values": target.singular_values.tolist(), "step_size": step}
            row = {**head, "rule": unit.kind, **numbers, **count(target, part["stratum"])}
            rows.append({**row, "loss_and_product_disagree": int(part["disagrees"].sum())})
        elif unit.kind == "special":
            _, families = _families(options, target, unit.network, np.dtype(f"float{options.precision}"))
            for family, inside, nudged in zip(families, part["stratum"], part["nudged"], strict=True):
                expected = target.fitted.index(family.expected)
                row = {**head, "set": family.name, "expected": endings.label(family.expected)}
                row |= {"ended_as_expected": int((inside == expected).sum()), **count(target, inside)}
                special.append({**row, "nudged": count(target, nudged)})
        elif unit.kind == "lingering":
            near += _lingering_rows(options, target, unit, part, head)
    return {"rows": rows + _pooled(options, rows), "special": special, "lingering": near}


def count(target: Target, stratum: np.ndarray) -> dict:
    """Orbits per stratum; the share that reaches a global minimum, and that ends at a saddle, with both intervals.

    Orbits without a verdict count among the runs: the intervals are for the share that is *known* to end there.
    """
    counts = {endings.label(fitted): int((stratum == n).sum()) for n, fitted in enumerate(target.fitted)}
    others = {"undecided": UNDECIDED, "diverged": GONE, "unidentified": UNIDENTIFIED}
    others = {name: int((stratum == code).sum()) for name, code in others.items()}
    return _with_intervals(counts, endings.label(target.fitted[target.minimum]), stratum.size, others)


def _with_intervals(counts: dict, minimum: str, runs: int, others: dict) -> dict:
    hits = counts[minimum]
    saddles = sum(counts.values()) - hits
    return {
        "runs": runs, "counts": counts, "global_minimum": minimum, **_share(hits, runs), "saddles": saddles,
        "saddle": _share(saddles, runs), **others,
    }  # fmt: skip


def _share(hits: int, runs: int) -> dict:
    intervals = {"wilson": estimators.wilson_interval, "clopper_pearson": estimators.clopper_pearson_interval}
    return {"share": hits / runs} | {name: [float(end) for end in fn(hits, runs)] for name, fn in intervals.items()}


def _pooled(options: Overfitting, rows: list[dict]) -> list[dict]:
    """The targets of each network together."""
    pooled = []
    for hidden in options.hidden_layers:
        for rule in ("descent", "flow"):
            some = [row for row in rows if (row["hidden_layers"], row["rule"]) == (hidden, rule)]
            counts = {name: sum(row["counts"][name] for row in some) for name in some[0]["counts"]}
            names = ("undecided", "diverged", "unidentified", "loss_and_product_disagree")
            others = {name: sum(row[name] for row in some) for name in names}
            runs = sum(row["runs"] for row in some)
            head = {"hidden_layers": hidden, "data": "all", "rule": rule}
            pooled.append(head | _with_intervals(counts, some[0]["global_minimum"], runs, others))
    return pooled


def _lingering_rows(options, target, unit, part, head) -> list[dict]:
    """For every saddle level that some orbit comes by: how many do, for how long, how small the gradient gets."""
    rows = []
    for level, fitted in enumerate(target.fitted):
        visits = part["spent"][:, level] > 0
        if level == target.minimum or not visits.any():
            continue
        spent, gradient = part["spent"][visits, level], part["gradient"][visits, level]
        low, median, high = np.quantile(spent, (0.1, 0.5, 0.9))
        seen = gradient[np.isfinite(gradient)]
        rows.append({
            **head, "spread": options.lingering_spreads[unit.spread], "fitted": endings.label(fitted),
            "value": float(target.values[level]), "orbits": int(visits.size), "visits": int(visits.sum()),
            "median": float(median), "quantile_10": float(low), "quantile_90": float(high),
            "longest": float(spent.max()), "least_gradient": float(np.median(seen)) if seen.size else None,
        })  # fmt: skip
    return rows


def staircases(options: Overfitting, problems: list, parts: dict) -> list:
    """One panel per network, for the first target."""
    panels = []
    for network, hidden in enumerate(options.hidden_layers):
        target, part = problems[network][0], parts[Unit("staircase", network, 0)]
        levels = {endings.label(fitted): value for fitted, value in zip(target.fitted, target.values, strict=True)}
        panels.append(figures.Staircase(hidden, stair_spread(options, network), part["times"], part["loss"], levels))
    return panels


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
