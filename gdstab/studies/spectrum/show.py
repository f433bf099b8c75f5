"""The table of spectra, and their figure with the thresholds 2 / eta."""

import numpy as np

from gdstab import figures, records
from gdstab.studies.options import read
from gdstab.studies.tables import columns, number

_LINES = 12


def table(summary: dict) -> str:
    """Both ends of the spectra, and how many eigenvalues are above each threshold; some of many points."""
    names = {"point": "point", "orbit": "update", "minima": "minimum"}
    above = [f"above {threshold:.4g}" for threshold in summary["thresholds"]]
    lines = [(names[summary["where"]], "loss", "smallest", "largest", "threshold", "inertia", *above)]
    rows = summary["rows"]
    shown = rows if len(rows) <= _LINES else [rows[i * (len(rows) - 1) // (_LINES - 1)] for i in range(_LINES)]
    for row in shown:
        numbers = (number(row[name], ".6g") for name in ("loss", "smallest", "largest", "threshold"))
        inertia = "-" if row["inertia"] is None else ", ".join(map(str, row["inertia"]))
        lines.append((row["number"], *numbers, inertia, *row["above"]))
    how = "all eigenvalues" if summary["dense"] else "the two ends by Lanczos, the density of the last point"
    return f"{columns(lines)}\n\n{summary['parameters']} parameters: {how}"


def draw(record: records.Record) -> dict:
    """The spectra of all points, and the density of the last one where only their ends are known."""
    options, dataset = read(record.configuration), record.dataset
    dense = "eigenvalues" in dataset
    values = dataset["eigenvalues" if dense else "extreme_eigenvalues"].values
    density = None if dense else tuple(dataset[name].values for name in ("eigenvalue", "density", "sem"))
    step_sizes = np.asarray(options.step_sizes)
    spectra = figures.Spectra(options.where, dataset["point"].values, values, step_sizes, density)
    return {"figure": figures.draw_spectrum(spectra)}
