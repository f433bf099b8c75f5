"""What `gdstab escape` reports: shares on the ladder of loss levels, what the theorems say, times near the levels."""

import math

import numpy as np

from gdstab import estimators
from gdstab.studies.escape import Escape, saddle_escape
from gdstab.studies.escape.relu_levels import (
    NAMES,
    NOT_CONVERGED,
    OFF_LADDER,
    SADDLES,
    ZERO,
    Ladder,
    level_name,
    pattern_name,
)
from gdstab.theory import relu

_QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def summarise(options: Escape, setting, descents: dict, around: dict) -> dict:
    """`rows`, one per step size; `levels` with their losses; `saddle`, and what was seen in the balls around it."""
    ladder, saddle = setting.ladder, setting.saddle
    levels = {level_name(kinks): float(value) for kinks, value in zip(ladder.kinks, ladder.values, strict=True)}
    rows = []
    for number, step_size in enumerate(setting.step_sizes):
        rows.append(row(ladder, float(step_size), {name: value[number] for name, value in descents.items()}))
    return {
        "levels": levels, "zero_below": ladder.zero, "threshold": ladder.threshold, "rows": rows,
        "saddle": {
            "pattern": [str(role) for role in saddle.pattern], "theta": saddle.theta.tolist(), "kind": saddle.kind,
            "level": level_name(ladder.kinks[saddle.level]), "curvature": saddle.curvature,
        },
        "balls": balls(options, ladder, saddle, around), "walked_starts": around["walk_starts"].tolist(),
    }  # fmt: skip


def row(ladder: Ladder, step_size: float, ends: dict[str, np.ndarray]) -> dict:
    """All that is counted of the starts of one step size."""
    level, kind = ends["level"], ends["kind"]
    found = {level_name(code): share(int((level == code).sum()), level.size) for code in (*ladder.kinks, ZERO, *NAMES)}
    kinds, counts = np.unique(kind[level != NOT_CONVERGED], return_counts=True)
    return {
        "step_size": step_size, "runs": int(level.size), "levels": found,
        "kinds": {relu.CriticalType(int(k)).name.lower(): int(n) for k, n in zip(kinds, counts, strict=True) if k},
        "passed_saddles": int(ends["passed"].sum()), "patterns": pattern_rows(ladder, level, ends["pattern"]),
        "not_converged": open_ends(ladder, ends), "theorem": theorem(ladder, ends),
        "near": near_rows(ladder, level, ends["near"]), "median_steps": float(np.median(ends["steps"])),
        "updates": int(ends["steps"].sum(dtype=np.int64)),
    }  # fmt: skip


def share(hits: int, runs: int) -> dict:
    """Count, share and both intervals; without runs there is no share."""
    if not runs:
        return {"count": 0, "share": None, "wilson": [0.0, 1.0], "clopper_pearson": [0.0, 1.0]}
    intervals = {"wilson": estimators.wilson_interval, "clopper_pearson": estimators.clopper_pearson_interval}
    ends = {name: [float(end) for end in fn(hits, runs)] for name, fn in intervals.items()}
    return {"count": hits, "share": hits / runs, **ends}


def pattern_rows(ladder: Ladder, level: np.ndarray, pattern: np.ndarray) -> list[dict]:
    """Neuron types of the end points on every level, the most frequent first."""
    rows = []
    for code in (ZERO, *ladder.kinks, OFF_LADDER):
        found, counts = np.unique(pattern[level == code], return_counts=True)
        for number in np.argsort(-counts, kind="stable"):
            name = pattern_name(int(found[number]), ladder.loss.neurons)
            rows.append({"level": level_name(code), "neurons": name, **share(int(counts[number]), level.size)})
    return rows


def open_ends(ladder: Ladder, ends: dict[str, np.ndarray]) -> dict:
    """Those that did not converge: how steep it still was, how low they came, whose loss was near which level."""
    some = ends["level"] == NOT_CONVERGED
    loss, gradient = ends["loss"][some], ends["gradient"][some]
    near = {level_name(kinks): int((np.abs(loss - value) <= ladder.rtol * value).sum())
            for kinks, value in zip(ladder.kinks, ladder.values, strict=True)}  # fmt: skip
    return {
        "count": int(some.sum()), "below_threshold": int((loss < ladder.threshold).sum()),
        "below_the_ladder": int((loss < ladder.values[-1]).sum()), "on_a_level_but_steep": near,
        "loss": _quantiles(loss), "gradient": _quantiles(gradient),
    }  # fmt: skip


def _quantiles(values: np.ndarray) -> dict:
    return {f"{q:g}": float(np.quantile(values, q)) for q in _QUANTILES} if values.size else {}


def theorem(ladder: Ladder, ends: dict[str, np.ndarray]) -> dict:
    """Theorem 1.2: of the runs whose limiting loss is below the threshold, how many ended at a saddle.

    With a leak Corollary 5.5 leaves no positive loss at all: there `positive` of `converged` counts.
    """
    level, loss = ends["level"], ends["loss"]
    converged = (level >= OFF_LADDER) & (level != OFF_LADDER)
    below = converged & (loss < ladder.threshold * (1 - ladder.rtol))
    saddles, positive = int((below & (level != ZERO)).sum()), int((converged & (level != ZERO)).sum())
    minima = int((ends["kind"] == relu.CriticalType.LOCAL_MINIMUM).sum())
    return {
        "below": int(below.sum()), "saddles": saddles, "rate": share(saddles, int(below.sum())),
        "converged": int(converged.sum()), "positive": positive, "local_minima": minima,
        "positive_rate": share(positive, int(converged.sum())),
    }  # fmt: skip


def near_rows(ladder: Ladder, level: np.ndarray, near: np.ndarray) -> list[dict]:
    """For every level: how many of the orbits that come to zero pass near it, and for how many updates."""
    rows = []
    for rung, kinks in enumerate(ladder.kinks):
        spent = near[level == ZERO, rung]
        visits = spent[spent > 0]
        quantiles = np.quantile(visits, (0.5, 0.9, 0.99)) if visits.size else (None,) * 3
        rows.append({
            "level": level_name(kinks), "orbits": int(spent.size), "visits": int(visits.size),
            **{name: None if value is None else float(value)
               for name, value in zip(("median", "quantile_90", "quantile_99"), quantiles, strict=True)},
            "longest": int(visits.max(initial=0)),
        })  # fmt: skip
    return rows


def balls(options: Escape, ladder: Ladder, saddle, around: dict[str, np.ndarray]) -> dict:
    """Levels reached from every ball, the times near the saddle's level, and how these grow as balls shrink.

    An orbit that is near the level when its budget ends has stayed for longer than is known; where a quantile depends
    on such orbits there is none.
    """
    rows, value = [], float(ladder.values[saddle.level])
    parts = [around[f"balls_{name}"] for name in ("level", "kind", "loss", "stay")]
    for radius, level, kind, loss, stay in zip(options.radii, *parts, strict=True):
        away = ~(np.abs(loss - value) <= options.band * value)
        times = np.quantile(np.where(away, stay, np.inf), (0.1, 0.5, 0.9), method="lower")
        counts = {level_name(int(code)): int((level == code).sum()) for code in np.unique(level)}
        at_saddle = int(np.isin(kind, SADDLES).sum())
        rows.append({
            "radius": radius, "runs": int(level.size), "levels": counts, "saddles": share(at_saddle, int(level.size)),
            "stay": times.tolist() if np.isfinite(times).all() else None,
        })  # fmt: skip
    small = [(-math.log(entry["radius"]), entry["stay"][1]) for entry in rows if entry["stay"]]
    small = sorted(small)[-max(2, len(small) - 2) :]  # without the largest balls, where the map is not linear
    slope = float(np.polyfit(*np.array(small).T, 1)[0]) if len(small) > 1 else None
    return {"rows": rows, "slope": slope, "predicted_slope": saddle_escape.predicted_time(options, saddle)}
