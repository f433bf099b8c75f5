"""The tables of multipliers and thresholds; the figures of the plane with the multipliers, and of the orbit."""

import numpy as np

from gdstab import figures, records
from gdstab.studies.multipliers.study import critical_curvature
from gdstab.studies.options import read
from gdstab.studies.tables import columns, counted

_MOST = 12  # multipliers in the table


def table(summary: dict) -> str:
    """The multipliers, the thresholds, how the engine agrees with them, and the curvature along the orbit."""
    parts = _multipliers(summary), _thresholds(summary), _engine(summary["diagram"]), _orbit(summary["orbit"])
    return "\n\n".join(parts)


def _multipliers(summary: dict) -> str:
    point = ", ".join(f"{x:.6g}" for x in summary["point"][:8]) + (", ..." if len(summary["point"]) > 8 else "")
    lines = [("multiplier", "modulus")]
    for real, imaginary in summary["multipliers"][:_MOST]:
        value = f"{real:.8f}" + (f" {'+' if imaginary > 0 else '-'} {abs(imaginary):.8f} i" if imaginary else "")
        lines.append((value, f"{abs(complex(real, imaginary)):.8f}"))
    growth = summary["growth"]
    bounded = f"up to {growth['peak'] or 0:.4g} times, after {growth['power']} updates"
    grows = "without bound" if growth["peak"] is None else bounded
    return "\n".join([
        f"{summary['rule']} above ({point}); largest curvature it sees: {summary['curvature']:.8g}",
        columns(lines),
        f"a disturbance of the parameters grows {grows}; numerical radius {growth['numerical_radius']:.4g}",
    ])  # fmt: skip


def _thresholds(summary: dict) -> str:
    rows = [("this one", summary["threshold"])]
    rows += [(f"({row['x']:.4g}, ...)", row) for row in summary["manifold"] or ()]
    lines = [("threshold of the minimum", "closed form", "numerical", "relative difference")]
    for name, row in rows:
        numbers = f"{row['closed_form']:.10g}", f"{row['numerical']:.10g}", f"{row['relative_difference']:.2g}"
        lines.append((name, *numbers))
    return columns(lines)


def _engine(found: dict) -> str:
    return (
        f"{found['lanes']:,} orbits near the minimum: {counted(found['counts'])}\n"
        f"against the closed form: {found['contradictions']:,} contradictions, none farther from the threshold than "
        f"{found['farthest']:.2g} of it; {found['undecided_below']} too slow below it, within "
        f"{found['slow_within']:.2g}; edges found within {found['measured']:.2g}, step sizes are up to "
        f"{found['spacing']:.2g} apart"
    )


def _orbit(found: dict) -> str:
    if found["median_to_limit"] is None:
        return "the orbit diverged"
    return (
        f"along the orbit the curvature it sees is at most {found['largest']:.4g}, its median over the second half "
        f"{found['median_of_second_half']:.4g}: {found['median_to_limit']:.3g} of the limit {found['limit']:.4g}"
    )


def draw(record: records.Record) -> dict:
    """The plane beside the multipliers of one of its maps; the orbit with the curvature that the rule sees."""
    options, dataset = read(record.configuration), record.dataset.load()
    plane, orbit = (
        [dataset[name].values for name in names]
        for names in (("step_size", "beta", "verdict", "updates", "threshold"), ("step", "loss", "curvature"))
    )
    values, reach = (dataset[name].values @ np.array([1, 1j]) for name in ("multipliers", "numerical_range"))
    here = figures.MultiplierMap(options.rule, options.step_size, options.beta, values, reach)
    edge = figures.StabilityEdge(options.rule, options.step_size, *orbit, critical_curvature(options))
    return {"figure": figures.draw_multipliers(figures.StabilityPlane(*plane), here), "orbit": figures.draw_edge(edge)}
