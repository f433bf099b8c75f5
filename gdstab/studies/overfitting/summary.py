"""What `summary.json` holds: shares of the strata with intervals, ends in null sets, times near the saddles."""

import numpy as np

from gdstab import estimators
from gdstab.studies.overfitting import Overfitting, endings
from gdstab.studies.overfitting.endings import GONE, UNDECIDED, UNIDENTIFIED, Target
from gdstab.studies.overfitting.units import families, step_size


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
