"""The tables of where ReLU networks end, and the figures of that, of one network that learns, and of a manifold."""

from gdstab import figures, records
from gdstab.studies import building
from gdstab.studies.escape import pictures, saddle_manifold
from gdstab.studies.escape.relu_levels import make_ladder
from gdstab.studies.options import read
from gdstab.studies.tables import number
from gdstab.studies.tables import table as columns

_MOST_PATTERNS = 8  # rows of the table of neuron types, for each step size


def table(summary: dict) -> str:
    """The ladder, the neurons, who did not converge, what the theorems say, and how the saddle is left."""
    rows = summary["rows"]
    parts = [_ladder(summary), _patterns(rows), _open(rows), _theorem(summary), _near(rows), _saddle(summary)]
    return "\n\n".join([*parts, _manifold(summary["manifold"])] if "manifold" in summary else parts)


def draw(record: records.Record) -> dict:
    """Where random starts end and how a saddle is left; a network that learns; a manifold, where there is one."""
    options, summary, data = read(record.configuration), record.summary, record.dataset
    levels, shares = summary["levels"], [pictures.ladder_shares(row) for row in summary["rows"]]
    ladder = make_ladder(building.build_loss(options.loss)[0], options.rtol)
    plane, times = pictures.plane(options, data), pictures.times(summary)
    learning = pictures.training(ladder, float(data["step_size"][0]), levels, data)
    found = {
        "figure": figures.draw_escape(shares, levels, plane, times, pictures.plateaus(options, data)),
        "network": figures.draw_training(learning),
    }
    return found | ({"manifold": saddle_manifold.draw(data)} if "manifold_graph" in data else {})


def _ladder(summary: dict) -> str:
    names = list(summary["rows"][0]["levels"])
    lines = [("ends", "loss", *(f"eta {row['step_size']:g}" for row in summary["rows"]))]
    for name in names:
        loss = summary["levels"].get(name, summary["zero_below"] if name == "zero" else None)
        value = f"{'< ' if name == 'zero' else ''}{number(loss, '.6g')}"
        lines.append((name, value, *(_share(row["levels"][name]) for row in summary["rows"])))
    runs = summary["rows"][0]["runs"]
    return f"{runs:,} random starts for each step size (limits at 95 %, Clopper and Pearson):\n" + columns(lines)


def _share(found: dict) -> str:
    low, high = found["clopper_pearson"]
    return f"{found['count']:,} [{low:.3g}, {high:.3g}]"


def _patterns(rows: list[dict]) -> str:
    lines = [("step size", "level", "neurons", "runs")]
    for row in rows:
        most = sorted(row["patterns"], key=lambda found: -found["count"])[:_MOST_PATTERNS]
        lines += [(f"{row['step_size']:g}", found["level"], found["neurons"], f"{found['count']:,}") for found in most]
    return "Most frequent types of neurons at the ends:\n" + columns(lines)


def _open(rows: list[dict]) -> str:
    lines = [("step size", "not converged", "loss: median", "largest", "gradient: least", "median", "largest")]
    for row in rows:
        found = row["not_converged"]
        loss, gradient = found["loss"], found["gradient"]
        values = (loss.get("0.5"), loss.get("1"), gradient.get("0"), gradient.get("0.5"), gradient.get("1"))
        lines.append((f"{row['step_size']:g}", f"{found['count']:,}", *(number(value, ".3g") for value in values)))
    return "Who did not converge:\n" + columns(lines)


def _theorem(summary: dict) -> str:
    if summary["configuration"]["loss"]["leak"] > 0:
        lines = [("step size", "converged", "at a positive loss", "at most")]
        for row in summary["rows"]:
            found, most = row["theorem"], row["theorem"]["positive_rate"]["clopper_pearson"][1]
            lines.append((f"{row['step_size']:g}", f"{found['converged']:,}", f"{found['positive']:,}", f"{most:.3g}"))
        return "Corollary 5.5, with a leak no limit has a positive loss:\n" + columns(lines)
    lines = [("step size", "limit below", "at a saddle", "at most", "at local minima", "passed a saddle slowly")]
    for row in summary["rows"]:
        found, most = row["theorem"], row["theorem"]["rate"]["clopper_pearson"][1]
        numbers = (
            f"{found['below']:,}",
            f"{found['saddles']:,}",
            f"{most:.3g}",
            f"{found['local_minima']:,}",
            row["passed_saddles"],
        )
        lines.append((f"{row['step_size']:g}", *numbers))
    return f"Theorem 1.2, no limit below {summary['threshold']:.6g} is a saddle:\n" + columns(lines)


def _near(rows: list[dict]) -> str:
    lines = [("step size", "level", "came to zero", "passed near", "median updates", "90 %", "99 %", "longest")]
    for row in rows:
        for found in row["near"]:
            quantiles = (found[name] for name in ("median", "quantile_90", "quantile_99"))
            times = (number(value, "g") for value in quantiles)
            counts = (f"{found['orbits']:,}", f"{found['visits']:,}")
            lines.append((f"{row['step_size']:g}", found["level"], *counts, *times, found["longest"]))
    return "Updates with the loss near a level, of those that come to zero:\n" + columns(lines)


def _saddle(summary: dict) -> str:
    found, saddle = summary["balls"], summary["saddle"]
    lines = [("radius", "runs", "ends", "updates near: 10 %", "median", "90 %")]
    for row in found["rows"]:
        ends = ", ".join(f"{count:,} {name}" for name, count in row["levels"].items())
        stay = ("-",) * 3 if row["stay"] is None else (f"{value:g}" for value in row["stay"])
        lines.append((f"{row['radius']:g}", f"{row['runs']:,}", ends, *stay))
    return (
        f"Balls around the {saddle['kind'].replace('_', ' ')} of neurons {' '.join(saddle['pattern'])}, curvature "
        f"{saddle['curvature']:.6g}:\n{columns(lines)}\n"
        f"updates per factor e: {number(found['slope'], '.5g')}, predicted {found['predicted_slope']:.5g}"
    )


def _manifold(found: dict) -> str:
    slopes, predicted = ((min(found[name]), max(found[name])) for name in ("slopes", "predicted_slopes"))
    return (
        f"Centre-stable manifold of the saddle of neurons {' '.join(found['pattern'])}: one update leads "
        f"{found['off_the_graph']:.2g} off it;\nbeside it orbits leave in {slopes[0]:.4g} to {slopes[1]:.4g} updates "
        f"per factor e of the distance, predicted {predicted[0]:.4g} to {predicted[1]:.4g}"
    )
