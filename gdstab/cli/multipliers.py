"""`gdstab multipliers`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Multipliers, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print the multipliers, the threshold and how the engine agrees with it."""
    options = process.parse(Multipliers, arguments, "multipliers")
    process.configure(options.precision)
    from gdstab.studies import multipliers  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(multipliers.phases(options)) as progress:
        study = multipliers.run(options, progress=progress)
    summary = study.record.summary
    print(describe(options), end="\n\n")
    print(
        _multipliers(summary), _thresholds(summary), _engine(summary["diagram"]), _orbit(summary["orbit"]), sep="\n\n"
    )
    note = "Results" if study.fresh else "This run was complete already; nothing was computed. Results"
    print(f"\n{note}: {study.record.path}")
    return 0


def _multipliers(summary: dict) -> str:
    point = ", ".join(f"{x:.6g}" for x in summary["point"][:8]) + (", ..." if len(summary["point"]) > 8 else "")
    lines = [("multiplier", "modulus")]
    for real, imaginary in summary["multipliers"][:12]:
        value = f"{real:.8f}" + (f" {'+' if imaginary > 0 else '-'} {abs(imaginary):.8f} i" if imaginary else "")
        lines.append((value, f"{abs(complex(real, imaginary)):.8f}"))
    growth = summary["growth"]
    bounded = f"up to {growth['peak'] or 0:.4g} times, after {growth['power']} updates"
    grows = "without bound" if growth["peak"] is None else bounded
    return "\n".join([
        f"{summary['rule']} above ({point}); largest curvature it sees: {summary['curvature']:.8g}",
        report.table(lines),
        f"a disturbance of the parameters grows {grows}; numerical radius {growth['numerical_radius']:.4g}",
    ])  # fmt: skip


def _thresholds(summary: dict) -> str:
    rows = [("this one", summary["threshold"])]
    rows += [(f"({row['x']:.4g}, ...)", row) for row in summary["manifold"] or ()]
    lines = [("threshold of the minimum", "closed form", "numerical", "relative difference")]
    for name, row in rows:
        lines.append(
            (name, f"{row['closed_form']:.10g}", f"{row['numerical']:.10g}", f"{row['relative_difference']:.2g}")
        )
    return report.table(lines)


def _engine(found: dict) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in found["counts"].items() if count)
    return (
        f"{found['lanes']:,} orbits near the minimum: {counts}\n"
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
