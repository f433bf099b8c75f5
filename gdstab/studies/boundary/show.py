"""The table of basins and of their edges, and their figure."""

import math

from gdstab import boundaries, figures, records
from gdstab.studies import building
from gdstab.studies.boundary.study import names
from gdstab.studies.options import read
from gdstab.studies.tables import columns


def table(summary: dict) -> str:
    """What the basins are, how they were found, and how rough their edges are."""
    rows = [("", "cells", "share")]
    rows += [(name, f"{count:,}", f"{summary['fractions'][name]:.6f}") for name, count in summary["counts"].items()]
    low, high = summary["area_bracket"]
    probes = summary["probes"]
    lines = [columns(rows), ""]
    if summary["minima"]:
        found = ", ".join(f"{count:,} with {name}" for name, count in summary["minima"].items())
        lines.append(f"converged: {found}")
    lines += [
        f"computed: {summary['lanes_computed']:,} of {summary['cells']:,} cells "
        f"({100 * summary['share_computed']:.3g} %) in {summary['rounds']} rounds; {summary['boundary_cells']:,} lie "
        "at an edge",
        f"random probes: {probes['cells']:,}, of which {probes['found']:,} found what was overlooked before",
        f"area that converged: {summary['area']:.6g}, between {low:.6g} and {high:.6g}",
        "",
        *_entropy(summary["entropy"]),
        *_uncertainty(summary["uncertainty"]),
    ]
    return "\n".join(lines)


def _entropy(entropy: dict) -> list[str]:
    lines = [f"basin entropy: {_with_interval(entropy['basin_entropy'], entropy['interval'])}"]
    if entropy["boundary_basin_entropy"] is not None:
        found = _with_interval(entropy["boundary_basin_entropy"], entropy["boundary_interval"])
        lines.append(
            f"boundary basin entropy: {found} (fractal if above ln 2 = {math.log(2):.4f}; straight edges have up to "
            f"{entropy['straight_edge']:.4f})"
        )
    return lines


def _uncertainty(found: dict) -> list[str]:
    if found["exponent"] is None:
        return ["uncertainty exponent: no range of distances could be fitted; try more --samples or other --scales"]
    low, high = found["range_used"]
    lines = [
        f"uncertainty exponent: {_with_interval(found['exponent'], found['interval'])}, from distances of {low:.3g} to "
        f"{high:.3g}",
        f"dimension of the boundary: {_with_interval(found['boundary_dimension'], found['dimension_interval'])}, "
        + ("fractal" if found["fractal"] else "as a smooth curve has it, or not told apart from it"),
    ]
    if found["any_precision_limited"]:
        lines.append("the smallest distances were left out: rounding, not the boundary, decides there")
    return lines


def _with_interval(value: float, interval: list) -> str:
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"


def draw(record: records.Record) -> dict:
    """The basins, the mesh at an edge, and the fit of the uncertainty exponent."""
    basins = picture(record)
    return {"figure": figures.draw_boundary(basins, exponent(record), names(basins, read(record.configuration).signs))}


def picture(record: records.Record) -> boundaries.AdaptiveHeatmap:
    """The basins of a run."""
    options = read(record.configuration)
    _, dim = building.build_loss(options.loss)
    plane = building.build_plane(options.plane, dim)
    return boundaries.AdaptiveHeatmap.from_xarray(record.dataset, box=options.box, plane=plane, dim=dim)


def exponent(record: records.Record) -> boundaries.UncertaintyExponent:
    """The shares of pairs that differ, and the line through them."""
    dataset, summary = record.dataset, record.summary["uncertainty"]
    fields = ("hits", "undecided", "used", "precision_limited")
    return boundaries.UncertaintyExponent(
        exponent=_or_nan(summary["exponent"]), interval=tuple(map(_or_nan, summary["interval"])),
        amplitude=float(dataset["amplitude"]), p_value=_or_nan(summary["p_value"]), scales=dataset["scale"].values,
        **{name: dataset[name].values for name in fields},
        **{name: summary[name] for name in ("samples", "saturation", "rounding_share")}, axes=2,
        lane_steps=record.summary["lane_steps"] - dataset.attrs["lane_steps"],
    )  # fmt: skip


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
