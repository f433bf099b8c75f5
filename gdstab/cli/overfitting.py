"""`gdstab overfitting`."""

import statistics
from collections.abc import Iterable, Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Overfitting, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print the shares and what happens at the saddles."""
    options = process.parse(Overfitting, arguments, "overfitting")
    process.configure(options.precision)
    from gdstab.studies import overfitting  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(overfitting.phases(options)) as progress:
        study = overfitting.run(options, progress=progress)
    summary = study.record.summary
    print(describe(options), end="\n\n")
    print(_shares(summary["rows"]), _special(summary["special"]), _lingering(summary["lingering"]), sep="\n\n")
    note = "Results" if study.fresh else "This run was complete already; nothing was computed. Results"
    print(f"\n{note}: {study.record.path}")
    return 0


def _shares(rows: list[dict]) -> str:
    header = (
        "hidden",
        "target",
        "rule",
        "runs",
        "global minimum",
        "at least",
        "saddle",
        "at most",
        "undecided",
        "gone",
    )
    lines = [header]
    for row in rows:
        least, most = row["clopper_pearson"][0], row["saddle"]["clopper_pearson"][1]
        lines.append((row["hidden_layers"], row["data"], row["rule"], f"{row['runs']:,}", f"{row['share']:.6f}",
                      f"{least:.6f}", row["saddles"], f"{most:.2g}", row["undecided"],
                      row["diverged"] + row["unidentified"]))  # fmt: skip
    return "Random starts (limits at 95 %, Clopper and Pearson):\n" + report.table(lines)


def _special(rows: list[dict]) -> str:
    lines = [("hidden", "set", "runs", "at its saddle", "gone", "nudged: global minimum", "undecided")]
    lines += [(row["hidden_layers"], row["set"], row["runs"], row["ended_as_expected"],
               row["diverged"] + row["unidentified"], f"{row['nudged']['share']:.3f}",
               row["nudged"]["undecided"]) for row in rows]  # fmt: skip
    return "Starts in sets of measure zero:\n" + report.table(lines)


def _lingering(rows: list[dict]) -> str:
    spreads = sorted({row["spread"] for row in rows}, reverse=True)
    lines = [("hidden", "level", *(f"start {spread:g}" for spread in spreads), "gradient")]
    for hidden, fitted in dict.fromkeys((row["hidden_layers"], row["fitted"]) for row in rows):
        some = [row for row in rows if (row["hidden_layers"], row["fitted"]) == (hidden, fitted)]
        times = [_median(row["median"] for row in some if row["spread"] == spread) for spread in spreads]
        gradient = _median(row["least_gradient"] for row in some if row["spread"] == spreads[-1])
        lines.append((hidden, fitted, *times, gradient))
    return (
        "Median time with the loss near that of a saddle, by the size of the start, and the least gradient meanwhile\n"
        "for the smallest (a level is also crossed far from its saddles: the gradient is not small then):\n"
        + report.table(lines)
    )


def _median(values: Iterable) -> str:
    found = [value for value in values if value is not None]
    return f"{statistics.median(found):.3g}" if found else "-"
