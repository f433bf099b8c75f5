"""The tables of a critical step size, and the figure: what is stable, and up to which step size."""

import numpy as np

from gdstab import figures, records
from gdstab.studies import building
from gdstab.studies.critical.study import exact_curves
from gdstab.studies.options import read
from gdstab.studies.tables import columns, number
from gdstab.theory import known

_FINE = 601  # step sizes on the exact curves


def table(summary: dict) -> str:
    """The flattest minimum, the thresholds of random ones, and what is stable at each step size."""
    return "\n\n".join([_critical(summary), _thresholds(summary), _shares(summary["rows"])])


def _critical(summary: dict) -> str:
    return columns([
        ("", "found", "exact"),
        ("sharpness of the flattest minimum", number(summary["flattest"]), number(summary["exact_flattest"])),
        ("critical step size", number(summary["critical_step"]), number(summary["exact_critical_step"])),
    ])  # fmt: skip


def _thresholds(summary: dict) -> str:
    quantiles = summary["thresholds"]
    header = (f"{summary['minima']:,} random minima", *(f"{100 * float(q):g} %" for q in quantiles))
    return columns([header, ("2 / sharpness", *(f"{value:.4g}" for value in quantiles.values()))])


def _shares(rows: list[dict]) -> str:
    curves = "trapped" in rows[0]
    header = ("step size", "stable samples", "95 % from", "to")
    lines = [(*header, "trapped area", "exact", "stable length", "exact") if curves else header]
    for row in rows:
        line = (f"{row['step_size']:.4g}", f"{row['share']:.4f}", *(f"{end:.4f}" for end in row["wilson"]))
        names = ("trapped", "exact_trapped", "stable_length", "exact_stable_length")
        lines.append((*line, *(f"{row[name]:.4f}" for name in names)) if curves else line)
    return columns(lines)


def draw(record: records.Record) -> dict:
    """Shares against the step size, the law of the thresholds."""
    return {"figure": figures.draw_critical(picture(record))}


def picture(record: records.Record) -> figures.Stable:
    """What is drawn; the exact curves on a finer grid than the measured ones."""
    dataset, summary = record.dataset, record.summary
    step_sizes, measured, exact = dataset["step_size"].values, None, None
    if "trapped" in dataset:
        options = read(record.configuration)
        fine = np.linspace(step_sizes.min(), step_sizes.max(), _FINE)
        product = known(building.build_loss(options.loss)[0]).hyperbola
        measured = {name: dataset[name].values for name in ("trapped", "stable_length")}
        exact = {"step_size": fine, **exact_curves(product, options.box, fine)}
    return figures.Stable(
        step_sizes=step_sizes, share=np.array([row["share"] for row in summary["rows"]]),
        interval=np.array([row["wilson"] for row in summary["rows"]]), thresholds=2 / dataset["sharpness"].values,
        critical_step=summary["critical_step"], exact_critical_step=summary["exact_critical_step"], measured=measured,
        exact=exact,
    )  # fmt: skip
