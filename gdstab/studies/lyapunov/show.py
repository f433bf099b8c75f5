"""The table of exponents and shares against the step size, and their figure with the heatmap."""

import math

import numpy as np

from gdstab import basins, figures, records
from gdstab.studies.options import read
from gdstab.studies.tables import columns, number

_REGIMES = tuple(kind.name.lower() for kind in basins.BOUNDED)
_MOST_ROWS = 36


def table(summary: dict) -> str:
    """Exponents, and what bounded orbits do, by step size; the heatmap in numbers."""
    rows = summary["rows"]
    known = "reduced" in rows[0]
    header = ["step size", "bounded", "exponent", "5 %", "95 %", *(name.replace("_", "-") for name in _REGIMES)]
    lines = [(*header, "on the line", "exact", "along", "across") if known else header]
    shown = rows[:: -(-len(rows) // _MOST_ROWS)]
    lines += [_line(row, known) for row in shown]
    text = [columns(lines), ""]
    if len(shown) < len(rows):
        text.append(f"{len(shown)} of {len(rows)} step sizes; all are in summary.json")
    text.append(f"{summary['starts']:,} points each; exponents are per update, shares are those of the bounded orbits")
    field = summary["map"]
    text.append(
        f"heatmap at step size {field['step_size']:g}: {field['bounded']:,} of {field['cells']:,} cells bounded, "
        f"{field['positive']:,} with a positive exponent over their first {field['steps']} updates "
        "(the table has those of the long run)"
    )
    seconds = summary["run_seconds"] + summary["compile_seconds"]
    text.append(f"{summary['lane_steps']:.4g} lane-steps; {seconds:.1f} s for the table")
    return "\n".join(text)


def _line(row: dict, known: bool) -> tuple[str, ...]:
    exponent = row["exponent"] or {}
    cells = [f"{row['step_size']:.6g}", f"{row['bounded']:,}"]
    cells += [_four_digits(exponent.get(name)) for name in ("median", "low", "high")]
    cells += ["-" if share is None else f"{share['value']:.4f}" for share in map(row["shares"].get, _REGIMES)]
    if known:
        cells.append(f"{row['collapsed']:,} of {row['moving']:,}" if row["moving"] else "-")
        numbers = row["closed_form"], *(row.get(name, [None])[0] for name in ("along", "across"))
        cells += map(_four_digits, numbers)
    return tuple(cells)


def _four_digits(value: float | None) -> str:
    """Behind the point, without the sign of a zero."""
    return number(value, ".4f").replace("-0.0000", "0.0000")


def draw(record: records.Record) -> dict:
    """Exponents and shares by step size, and the heatmap."""
    options = read(record.configuration)
    rows = sorted(record.summary["rows"], key=lambda row: row["step_size"])

    def column(*names):
        return np.array([_dig(row, names) for row in rows], float)

    def on_line(name):
        return np.stack([column(name, i) for i in range(3)], axis=-1) if known else None

    field, known = record.dataset["map_exponent"], "reduced" in rows[0]
    picture = figures.Exponents(
        step_sizes=column("step_size"),
        exponent=np.stack([column("exponent", name) for name in ("low", "median", "high")], axis=-1),
        shares={name: column("shares", name, "value") for name in _REGIMES}, bounded=column("bounded_share", "value"),
        closed_form=column("closed_form") if known else None, along=on_line("along"), across=on_line("across"),
        critical_step=rows[0]["step_size"] / rows[0]["reduced"] if known else None, field=field.values,
        box=options.map_box, axes=field.dims, map_step_size=options.map_step_size, map_steps=options.map_steps,
        confidence=options.confidence,
    )  # fmt: skip
    return {"figure": figures.draw_lyapunov(picture)}


def _dig(row, names) -> float:
    """A nested entry, NaN where there is none."""
    for name in names:
        if row is None:
            return math.nan
        row = row[name] if isinstance(row, list) else row.get(name)
    return math.nan if row is None else row
