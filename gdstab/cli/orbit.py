"""`gdstab orbit`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Orbit, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back; print how every orbit ends, and the steps if there is only one."""
    options = process.parse(Orbit, arguments, "orbit")
    process.configure(options.precision)
    from gdstab.studies import orbit  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(orbit.PHASES) as progress:
        study = orbit.run(options, progress=progress)
    rows = study.record.summary["orbits"]
    print(describe(options), end="\n\n")
    if len(rows) == 1:
        print(_steps(study.record.dataset), end="\n\n")
    print(_ends(rows))
    note = "Results" if study.fresh else "This run was complete already; nothing was computed. Results"
    print(f"{note}: {study.record.path}")
    return 0


def _steps(dataset) -> str:
    path = dataset["theta"].values[0, 0]
    names = [f"x{i}" for i in range(path.shape[1])]
    return report.table([("step", *names), *((step, *(f"{x:.10g}" for x in point)) for step, point in enumerate(path))])


def _ends(rows: list[dict]) -> str:
    header = ("step size", "start", "outcome", "steps", "period", "end", "loss")
    return report.table([header, *(_row(row) for row in rows)])


def _row(row: dict) -> tuple:
    loss = "-" if row["loss"] is None else f"{row['loss']:.3g}"
    step_size, period = f"{row['step_size']:g}", row["period"] or "-"
    return step_size, _point(row["start"]), row["outcome"], row["steps"], period, _point(row["end"]), loss


def _point(point: list) -> str:
    return "(" + ", ".join("-" if x is None else f"{x:.4g}" for x in point) + ")"
