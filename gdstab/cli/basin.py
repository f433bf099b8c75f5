"""`gdstab basin`."""

import dataclasses
from collections.abc import Sequence

from gdstab.cli import joining, process, report
from gdstab.studies.options import Basin, configuration, describe


@dataclasses.dataclass(frozen=True)
class Command(joining.Joining, Basin):
    """What share of the initial points ends where, for every step size, and how surely?"""


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print its table."""
    command = process.parse(Command, arguments, "basin")
    options = Basin(**{field.name: getattr(command, field.name) for field in dataclasses.fields(Basin)})
    place = joining.find_place(command)
    process.configure(options.precision)
    if place is not None:
        joining.join(place, command.join_timeout, configuration(options))
    from gdstab.studies import basin, teams  # noqa: PLC0415 (JAX is configured first, and knows the other processes)

    if place is not None and place.number:
        basin.run(options, team=teams.Team(place.number, place.size))
        print(f"process {place.number} of {place.size} has done its share; process 0 has the result")
        return 0
    size = 1 if place is None else place.size
    with report.Progress(basin.phases(options, size)) as progress:
        study = basin.run(options, progress=progress, team=teams.Team(0, size))
    print(describe(options), end="\n\n")
    print(_table(study.record.summary))
    where = study.record.path
    if study.measure is None:
        print(f"This run was complete already; nothing was computed. Results: {where}")
    else:
        print(f"Results: {where} (result.zarr, summary.json, figure.png, figure.pdf)")
    return 0


def _table(summary: dict) -> str:
    percent = f"{100 * summary['confidence']:g} %"
    lines = [
        ("step size", "converged", f"{percent} from", "to", "exact", "cycling", "undecided", "diverged", "not finite")
    ]
    for row in summary["rows"]:
        counts, samples = row["counts"], row["samples"]
        shares = [counts[name] / samples for name in ("cycling", "undecided", "diverged", "nonfinite")]
        exact = "-" if row["exact"] is None else f"{row['exact']:.6f}"
        measured = (f"{value:.6f}" for value in (row["share"], *row["interval"]))
        lines.append((f"{row['step_size']:.6g}", *measured, exact, *(f"{share:.6f}" for share in shares)))
    return "\n".join([report.table(lines), "", *_notes(summary)])


def _notes(summary: dict) -> list[str]:
    notes = []
    kinds = {name: sum(row["kinds"][name] for row in summary["rows"]) for name in summary["rows"][0]["kinds"]}
    names = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in kinds.items() if count)
    notes.append(f"{summary['samples']:,} points each, the same for all step sizes; converged to: {names or 'nothing'}")
    if summary["critical_step"] is not None:
        notes.append(f"critical step size: {summary['critical_step']:.10g}")
    if summary["sequential"] is not None:
        notes.append(_sequential(summary["sequential"]))
    seconds, rate = summary["run_seconds"], summary["lane_steps"] / max(summary["run_seconds"], 1e-9)
    notes.append(
        f"{summary['lane_steps']:.4g} lane-steps in {seconds:.2f} s ({rate:.3g}/s), after "
        f"{summary['compile_seconds']:.2f} s of compilation"
    )
    return notes


def _sequential(stopped: dict) -> str:
    missed = stopped["reached"].count(False)
    if not missed:
        return f"all intervals are at most {stopped['width']:g} wide, after {stopped['looks']} looks"
    return (
        f"the budget ended before {missed} of {len(stopped['reached'])} intervals were at most {stopped['width']:g} "
        f"wide; the widest has {max(stopped['widths']):.3g}: raise --samples, or be content with that"
    )
