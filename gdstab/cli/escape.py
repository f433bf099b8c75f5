"""`gdstab escape`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Escape, describe

_MOST_PATTERNS = 8  # rows of the table of neuron types, for each step size


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print the ladder, the neurons, and how the saddle is left."""
    options = process.parse(Escape, arguments, "escape")
    process.configure(options.precision)
    from gdstab.studies import escape  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(escape.phases(options)) as progress:
        study = escape.run(options, progress=progress)
    summary = study.record.summary
    leak = summary["configuration"]["loss"]["leak"]
    print(describe(options), end="\n\n")
    print(_ladder(summary), _patterns(summary["rows"]), _open(summary["rows"]), _theorem(summary, leak), sep="\n\n")
    print(f"\n{_near(summary['rows'])}\n\n{_saddle(summary)}")
    if "manifold" in summary:
        print(_manifold(summary["manifold"]))
    note = "Results" if study.fresh else "This run was complete already; nothing was computed. Results"
    print(f"\n{note}: {study.record.path}")
    return 0


def _ladder(summary: dict) -> str:
    names = list(summary["rows"][0]["levels"])
    lines = [("ends", "loss", *(f"eta {row['step_size']:g}" for row in summary["rows"]))]
    for name in names:
        loss = summary["levels"].get(name, summary["zero_below"] if name == "zero" else None)
        value = "-" if loss is None else f"{'< ' if name == 'zero' else ''}{loss:.6g}"
        lines.append((name, value, *(_share(row["levels"][name]) for row in summary["rows"])))
    runs = summary["rows"][0]["runs"]
    return f"{runs:,} random starts for each step size (limits at 95 %, Clopper and Pearson):\n" + report.table(lines)


def _share(found: dict) -> str:
    low, high = found["clopper_pearson"]
    return f"{found['count']:,} [{low:.3g}, {high:.3g}]"


def _patterns(rows: list[dict]) -> str:
    lines = [("step size", "level", "neurons", "runs")]
    for row in rows:
        most = sorted(row["patterns"], key=lambda found: -found["count"])[:_MOST_PATTERNS]
        lines += [(f"{row['step_size']:g}", found["level"], found["neurons"], f"{found['count']:,}") for found in most]
    return "Most frequent types of neurons at the ends:\n" + report.table(lines)


def _open(rows: list[dict]) -> str:
    lines = [("step size", "not converged", "loss: median", "largest", "gradient: least", "median", "largest")]
    for row in rows:
        found = row["not_converged"]
        loss, gradient = found["loss"], found["gradient"]
        values = (loss.get("0.5"), loss.get("1"), gradient.get("0"), gradient.get("0.5"), gradient.get("1"))
        lines.append(
            (f"{row['step_size']:g}", f"{found['count']:,}", *("-" if v is None else f"{v:.3g}" for v in values))
        )
    return "Who did not converge:\n" + report.table(lines)


def _theorem(summary: dict, leak: float) -> str:
    if leak > 0:
        lines = [("step size", "converged", "at a positive loss", "at most")]
        for row in summary["rows"]:
            found, most = row["theorem"], row["theorem"]["positive_rate"]["clopper_pearson"][1]
            lines.append((f"{row['step_size']:g}", f"{found['converged']:,}", f"{found['positive']:,}", f"{most:.3g}"))
        return "Corollary 5.5, with a leak no limit has a positive loss:\n" + report.table(lines)
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
    return f"Theorem 1.2, no limit below {summary['threshold']:.6g} is a saddle:\n" + report.table(lines)


def _near(rows: list[dict]) -> str:
    lines = [("step size", "level", "came to zero", "passed near", "median updates", "90 %", "99 %", "longest")]
    for row in rows:
        for found in row["near"]:
            quantiles = (found[name] for name in ("median", "quantile_90", "quantile_99"))
            times = ("-" if value is None else f"{value:g}" for value in quantiles)
            counts = (f"{found['orbits']:,}", f"{found['visits']:,}")
            lines.append((f"{row['step_size']:g}", found["level"], *counts, *times, found["longest"]))
    return "Updates with the loss near a level, of those that come to zero:\n" + report.table(lines)


def _saddle(summary: dict) -> str:
    found, saddle = summary["balls"], summary["saddle"]
    lines = [("radius", "runs", "ends", "updates near: 10 %", "median", "90 %")]
    for row in found["rows"]:
        ends = ", ".join(f"{count:,} {name}" for name, count in row["levels"].items())
        stay = ("-",) * 3 if row["stay"] is None else (f"{value:g}" for value in row["stay"])
        lines.append((f"{row['radius']:g}", f"{row['runs']:,}", ends, *stay))
    slope = "-" if found["slope"] is None else f"{found['slope']:.5g}"
    return (
        f"Balls around the {saddle['kind'].replace('_', ' ')} of neurons {' '.join(saddle['pattern'])}, curvature "
        f"{saddle['curvature']:.6g}:\n{report.table(lines)}\n"
        f"updates per factor e: {slope}, predicted {found['predicted_slope']:.5g}"
    )


def _manifold(found: dict) -> str:
    slopes, predicted = ((min(found[name]), max(found[name])) for name in ("slopes", "predicted_slopes"))
    return (
        f"\nCentre-stable manifold of the saddle of neurons {' '.join(found['pattern'])}: one update leads "
        f"{found['off_the_graph']:.2g} off it;\nbeside it orbits leave in {slopes[0]:.4g} to {slopes[1]:.4g} updates "
        f"per factor e of the distance, predicted {predicted[0]:.4g} to {predicted[1]:.4g}"
    )
