"""The tables of the overfitting conjecture, and its figure: staircases, and times near the saddles."""

import statistics
from collections.abc import Iterable

from gdstab import figures, records
from gdstab.studies.options import read
from gdstab.studies.overfitting.units import stair_spread
from gdstab.studies.tables import columns, number


def table(summary: dict) -> str:
    """The shares, and what happens at the saddles."""
    parts = (_shares(summary["rows"]), _special(summary["special"]), _lingering(summary["lingering"]))
    return "\n\n".join(parts)


def _shares(rows: list[dict]) -> str:
    lines = [
        ("hidden", "target", "rule", "runs", "global minimum", "at least", "saddle", "at most", "undecided", "gone")
    ]
    for row in rows:
        least, most = row["clopper_pearson"][0], row["saddle"]["clopper_pearson"][1]
        lines.append((row["hidden_layers"], row["data"], row["rule"], f"{row['runs']:,}", f"{row['share']:.6f}",
                      f"{least:.6f}", row["saddles"], f"{most:.2g}", row["undecided"],
                      row["diverged"] + row["unidentified"]))  # fmt: skip
    return "Random starts (limits at 95 %, Clopper and Pearson):\n" + columns(lines)


def _special(rows: list[dict]) -> str:
    lines = [("hidden", "set", "runs", "at its saddle", "gone", "nudged: global minimum", "undecided")]
    lines += [(row["hidden_layers"], row["set"], row["runs"], row["ended_as_expected"],
               row["diverged"] + row["unidentified"], f"{row['nudged']['share']:.3f}",
               row["nudged"]["undecided"]) for row in rows]  # fmt: skip
    return "Starts in sets of measure zero:\n" + columns(lines)


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
        + columns(lines)
    )


def _median(values: Iterable) -> str:
    found = [value for value in values if value is not None]
    return number(statistics.median(found) if found else None, ".3g")


def draw(record: records.Record) -> dict:
    """One staircase per network, for the first target, and the times near the saddles."""
    options, dataset = read(record.configuration), record.dataset
    values = dataset["critical_values"].values[0]  # all networks have the same
    levels = dict(zip(dataset.attrs["levels"].split(), values.tolist(), strict=True))
    times, losses = dataset["time"].values, dataset["staircase_loss"].values
    stairs = [
        figures.Staircase(hidden, stair_spread(options, network), times, losses[network], levels)
        for network, hidden in enumerate(options.hidden_layers)
    ]
    return {"figure": figures.draw_overfitting(stairs, record.summary["lingering"])}
