"""The claims on disk: `claims.json`, a report in Markdown, and the figures."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from gdstab import figures, records
from gdstab.claims.registry import Verdict, iter_run


def run_report(
    paper: str | None = None,
    only: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    on_row: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Run claims as `run`; into a directory `out` write `claims.json`, `report.md` and the figures.

    Parameters
    ----------
    paper, only
        As in `registry.run`.
    out
        Made if it is not there. Files of the same names are replaced.
    on_row
        Called with every row as it comes.

    Returns
    -------
    The rows; those with a figure name its file under `figure`.
    """
    rows, found = [], iter_run(paper, only)
    folder = None if out is None else Path(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for row, finding in found:
        has_figure = folder is not None and finding is not None and finding.figure is not None
        rows.append(row | _draw(row["id"], finding.figure, folder) if has_figure else row)
        if on_row is not None:
            on_row(rows[-1])
    if folder is not None:
        (folder / "claims.json").write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(markdown(rows), encoding="utf-8")
    return rows


def _draw(name: str, figure: Callable, folder: Path) -> dict:
    """Save the figure; where it cannot be drawn, the row says so."""
    try:
        png, _ = figures.save(figure(), folder, name)
    except Exception as error:
        return {"error": f"the figure failed: {type(error).__name__}: {error}"}
    return {"figure": png.name}


def markdown(rows: Sequence[dict]) -> str:
    """The report: a count of verdicts, a table, and a section for each claim.

    >>> row = {"id": "A.x", "source": "Theorem 0", "statement": "1 < 2.", "verdict": "holds", "numbers": {"gap": 1.0},
    ...        "note": "", "seconds": 0.1}
    >>> print(markdown([row]).splitlines()[6])
    | [A.x](#ax) | Theorem 0 | holds | 0.1 |
    """
    counts = Counter(row["verdict"] or "error" for row in rows)
    made = records.provenance("float64")
    lines = [
        "# Claims",
        "",
        "; ".join(f"{counts[name]} {name}" for name in [*map(str, Verdict), "error"] if counts[name]) + ".",
        "",
        "| claim | source | verdict | seconds |",
        "|---|---|---|---|",
    ]
    for row in rows:
        name, verdict = f"[{row['id']}](#{_anchor(row['id'])})", row["verdict"] or "ERROR"
        lines.append(f"| {name} | {row['source']} | {verdict} | {row['seconds']:.1f} |")
    for row in rows:
        lines += ["", f"## {row['id']}", "", f"**{row['source']}.** {row['statement']}", ""]
        lines += [f"**Verdict: {row['verdict'] or 'none'}.** {row['note']}".rstrip()]
        if "error" in row:
            lines += ["", f"**Error.** `{row['error']}`"]
        if row["numbers"]:
            lines += ["", "| number | value |", "|---|---|"]
            lines += [f"| {_cell(name)} | {_cell(_short(value))} |" for name, value in row["numbers"].items()]
        if "figure" in row:
            lines += ["", f"![{row['id']}]({row['figure']})"]
    used = ", ".join(f"{name} {made[name]}" for name in ("gdstab", "jax", "numpy", "dtype", "device_kind"))
    return "\n".join([*lines, "", f"Made with {used}.", ""])


def _anchor(name: str) -> str:
    """As common renderers of Markdown name a heading.

    >>> _anchor("B.lem2.3")
    'blem23'
    """
    return name.lower().replace(".", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _short(value) -> str:
    """A number to five digits; lists and dictionaries inline.

    >>> _short({"share": 1 / 3, "of": [10, 2.0]})
    'share: 0.33333, of: [10, 2]'
    """
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_short(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return str(value)
