"""The parts of the work: in what order they are done, where their orbits start, how far these step; and their sums.

`summarise` has the shares of the strata with intervals, ends in null sets, times near the saddles.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gdstab import estimators
from gdstab.studies.overfitting import Overfitting, endings
from gdstab.studies.overfitting.endings import GONE, UNDECIDED, UNIDENTIFIED, Target
from gdstab.theory import linear

KINDS = ("descent", "flow", "special", "lingering", "staircase")
"""What parts there are; their places tell their random numbers apart."""
RANDOM = "random starts"
"""The phase of `descent` and `flow`."""


class Unit(NamedTuple):
    """A part of the work, which is written down when it is done."""

    kind: str  # one of `KINDS`
    network: int  # its place among the numbers of hidden layers
    data: int  # the number of the target
    spread: int = 0  # the place among the spreads of lingering
    span: tuple[int, int] = (0, 0)  # of the random starts, where they are cut into pieces


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


def phase_of(options: Overfitting, unit: Unit) -> str:
    """The phase that a part of the work belongs to."""
    names = {"special": "starts in null sets", "staircase": "staircase", "lingering": "time near saddles"}
    return f"{options.hidden_layers[unit.network]} hidden: {names.get(unit.kind, RANDOM)}"


def step_size(options: Overfitting, target: Target, network: int) -> float:
    r"""The share of $\eta_C = 2 / \min_M \lambda_{max}$ that descent takes."""
    depth = options.hidden_layers[network] + 1
    return options.step_share * 2 / linear.flattest_sharpness(float(target.singular_values[0]), depth)


def starts(options, unit, num, spread, dtype):
    """Random starts of a unit: other ones for each network, target, kind and spread."""
    name = (unit.network, unit.data, KINDS.index(unit.kind), unit.spread)
    return endings.random_starts(options.seed, name, num, network_widths(options)[unit.network], spread, dtype)


def families(options, target, network, dtype):
    """The target in the coordinates of its singular vectors, and the special sets of starts."""
    widths = network_widths(options)[network]
    found = endings.special_families(options.seed, (98, network), options.special_starts, widths, options.spread, dtype)
    return endings.diagonal_target(target, widths, dtype), list(found)


def stair_spread(options: Overfitting, network: int) -> float:
    """How small the orbits of the staircase start: the smaller, the fewer layers, since fewer layers wait less."""
    return min(options.lingering_spreads) ** (2 / options.hidden_layers[network])


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
            _, sets = families(options, target, unit.network, np.dtype(f"float{options.precision}"))
            for family, inside, nudged in zip(sets, part["stratum"], part["nudged"], strict=True):
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
