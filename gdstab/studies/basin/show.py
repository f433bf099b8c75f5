"""The table of basin measures, and their figure: measured shares, the exact ones between them."""

import math

import numpy as np

from gdstab import figures, records
from gdstab.outcomes import Outcome
from gdstab.studies import building, labels
from gdstab.studies.basin import Basin, distributions
from gdstab.studies.options import read
from gdstab.studies.tables import columns, counted, number, timing
from gdstab.theory import known

_FINE = 400  # step sizes on the exact curve


def table(summary: dict) -> str:
    """What share ended in which way, a line per step size."""
    percent = f"{100 * summary['confidence']:g} %"
    rows = [
        ("step size", "converged", f"{percent} from", "to", "exact", "cycling", "undecided", "diverged", "not finite")
    ]
    for row in summary["rows"]:
        counts, samples = row["counts"], row["samples"]
        others = (counts[name] / samples for name in ("cycling", "undecided", "diverged", "nonfinite"))
        shares = (row["share"], *row["interval"], row["exact"], *others)
        rows.append((f"{row['step_size']:.6g}", *(number(share, ".6f") for share in shares)))
    found = ["", labels.shares_table(summary)] if "attractors" in summary else []
    return "\n".join([columns(rows), *found, "", *_notes(summary)])


def _notes(summary: dict) -> list[str]:
    kinds = {name: sum(row["kinds"][name] for row in summary["rows"]) for name in summary["rows"][0]["kinds"]}
    lines = [f"{summary['samples']:,} points each, the same for all step sizes; converged to: {counted(kinds)}"]
    if summary["critical_step"] is not None:
        lines.append(f"critical step size: {summary['critical_step']:.10g}")
    if summary["sequential"] is not None:
        lines.append(_sequential(summary["sequential"]))
    return [*lines, timing(summary)]


def _sequential(stopped: dict) -> str:
    missed = stopped["reached"].count(False)
    if not missed:
        return f"all intervals are at most {stopped['width']:g} wide, after {stopped['looks']} looks"
    return (
        f"the budget ended before {missed} of {len(stopped['reached'])} intervals were at most {stopped['width']:g} "
        f"wide; the widest has {max(stopped['widths']):.3g}: raise --samples, or be content with that"
    )


def draw(record: records.Record) -> dict:
    """The shares against the step size; with labels, those of each attractor as a figure of its own."""
    drawn = {"figure": figures.draw_basin(picture(read(record.configuration), record.summary))}
    if "attractors" in record.summary:
        drawn["attractors"] = figures.draw_label_shares(label_picture(record.summary))
    return drawn


def picture(options: Basin, summary: dict) -> figures.Shares:
    """What is drawn, in the order of the step sizes."""
    rows = sorted(summary["rows"], key=lambda row: row["step_size"])
    eta, exact = (np.array([row[name] for row in rows], float) for name in ("step_size", "exact"))
    shares = {name: np.array([row["counts"][name] / row["samples"] for row in rows]) for name in rows[0]["counts"]}
    between = np.isfinite(exact).any() and len(eta) > 1
    return figures.Shares(
        step_sizes=eta, converged=np.array([row["share"] for row in rows]),
        interval=np.array([row["interval"] for row in rows]), cycling=shares["cycling"],
        undecided=np.array([row["undecided_bounds"][1] - row["undecided_bounds"][0] for row in rows]),
        confidence=summary["confidence"], exact=exact,
        curve=exact_curve(options, eta, summary["critical_step"]) if between else None,
        critical_step=summary["critical_step"], left=shares["diverged"] + shares["nonfinite"],
    )  # fmt: skip


def label_picture(summary: dict) -> figures.LabelShares:
    """The shares of labels, in the order of the step sizes; a cycle that has a label is no verdict beside it."""
    rows = sorted(summary["rows"], key=lambda row: row["step_size"])
    ends = {
        name: np.array([[entry[name] for entry in row["labels"]] for row in rows]) for name in ("share", "interval")
    }
    samples = np.array([row["samples"] for row in rows])
    rest = {kind: np.array([row["counts"][kind.name.lower()] for row in rows]) / samples for kind in Outcome}
    labelled = ends["share"].sum(axis=1)
    rest[Outcome.CYCLING] = np.maximum(rest[Outcome.CYCLING] + rest.pop(Outcome.CONVERGED) - labelled, 0)
    rest[Outcome.CYCLING][rest[Outcome.CYCLING] < 0.5 / samples] = 0  # rounding
    return figures.LabelShares(
        step_sizes=np.array([row["step_size"] for row in rows]),
        share=ends["share"],
        interval=ends["interval"],
        names=tuple(row["name"] for row in summary["attractors"]),
        rest=rest,
        confidence=summary["confidence"],
        critical_step=summary["critical_step"],
    )


def exact_curve(options: Basin, eta: np.ndarray, critical: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The exact share between the step sizes that were run, too, and on both sides of its jump at the critical one."""
    fine = np.linspace(eta[0], eta[-1], _FINE)
    if critical is not None and eta[0] <= critical <= eta[-1]:
        fine = np.union1d(fine, [critical, math.nextafter(critical, math.inf)])
    loss, dim = building.build_loss(options.loss)
    what = known(loss)
    return fine, np.array([distributions.exact_share(options, what, dim, float(step)) for step in fine], float)
