"""`gdstab boundary`."""

import math
from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Boundary, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print what the basins are and how rough their edges."""
    options = process.parse(Boundary, arguments, "boundary")
    process.configure(options.precision)
    from gdstab.studies import boundary  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(boundary.phases(options)) as progress:
        study = boundary.run(options, progress=progress)
    print(describe(options), end="\n\n")
    print(_text(study.record.summary))
    note = "Results" if study.heatmap is not None else "This run was complete already; nothing was computed. Results"
    print(f"{note}: {study.record.path}")
    return 0


def _text(summary: dict) -> str:
    rows = [("", "cells", "share")]
    rows += [(name, f"{count:,}", f"{summary['fractions'][name]:.6f}") for name, count in summary["counts"].items()]
    low, high = summary["area_bracket"]
    probes = summary["probes"]
    lines = [report.table(rows), ""]
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
