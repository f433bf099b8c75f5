"""The claims on disk: `claims.json`, a report in Markdown, and the figures."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np

import gdstab
from gdstab import figures, records
from gdstab.claims.registry import Claim, Finding, Verdict, chosen_claims, evaluate, keeping, unexpected
from gdstab.studies import phases


def run_report(
    paper: str | None = None,
    only: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    on_row: Callable[[dict], None] | None = None,
    progress: Callable | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> list[dict]:
    """Run claims as `run`; in a directory `out` write `claims.json`, `report.md` and the figures.

    The directory is that of a run, begun as `records.begin` says: where this very package has run the same claims,
    their rows are read back; every row, and every piece of a long claim (see `registry.kept`), is kept as it comes, so
    that an interrupted run goes on with the next.

    Parameters
    ----------
    paper, only
        As in `registry.run`.
    out, overwrite, resume
        As in `records.begin`.
    on_row
        Called with every row as it comes.
    progress
        Its method `phase` is called with the identifier of every claim that is begun, see `studies.phases`.

    Returns
    -------
    The rows; those with a figure name its file under `figure`.

    Raises
    ------
    ValueError
        If there is no such claim or paper, or `out` cannot be used as asked.
    """
    chosen, tell = chosen_claims(paper, only), on_row or (lambda _: None)
    if out is None:
        return [_told(_evaluated(each, progress)[0], tell) for each in chosen]
    names = [only] if isinstance(only, str) else only if only is None else list(only)
    asked = {"study": "claims", "paper": paper, "only": names, "package": _fingerprint()}
    record = records.begin(out, asked, overwrite=overwrite, resume=resume)
    if record.complete:
        return json.loads((record.path / "claims.json").read_text(encoding="utf-8"))
    try:
        return _reported(chosen, record, tell, progress)
    finally:
        record.release()


def _reported(chosen: Sequence[Claim], record: records.Record, tell: Callable, progress: Callable | None) -> list[dict]:
    """All rows, those that are kept read back, the others found, kept and at last written down."""
    parts = list(record.parts())  # rows, and pieces of claims by their name, in the order in which they came
    pieces = {str(part.pop("piece")): part for part in parts if "piece" in part}
    rows = [_told(json.loads(str(part["row"])), tell) for part in parts if "row" in part]
    numbers = count(len(parts))

    def piece(name: str, make: Callable[[], dict]) -> dict:
        if name not in pieces:
            pieces[name] = make()
            record.commit(next(numbers), piece=np.str_(name), **pieces[name])
        return pieces[name]

    for each in chosen[len(rows) :]:
        with keeping(piece):
            row, finding = _evaluated(each, progress)
            row |= _draw(row["id"], finding, record)
        record.commit(next(numbers), row=np.str_(json.dumps(row)))
        rows.append(_told(row, tell))
    text = json.dumps(rows, indent=2, allow_nan=False) + "\n"
    record.write("claims.json", lambda file: file.write(text.encode()))
    record.write("report.md", lambda file: file.write(markdown(rows).encode()))
    counts, wrong = Counter(row["verdict"] or "error" for row in rows), [row["id"] for row in unexpected(rows)]
    found = {"claims": len(rows), "verdicts": dict(counts), "unexpected": wrong}
    record.finish({**found, "provenance": records.provenance("float64")})
    return rows


def _fingerprint() -> str:
    """Of the package's own text: verdicts of another text are not read back as those of this one."""
    total, root = hashlib.sha256(), Path(gdstab.__file__).parent
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def _told(row: dict, tell: Callable[[dict], None]) -> dict:
    tell(row)
    return row


def _evaluated(each: Claim, progress: Callable | None) -> tuple[dict, Finding | None]:
    phases.enter(progress, each.id)
    return evaluate(each)


def _draw(name: str, finding: Finding | None, record: records.Record) -> dict:
    """Save the figure, if there is one; where it cannot be drawn, the row says so."""
    if finding is None or finding.figure is None:
        return {}
    try:
        png, _ = figures.save(finding.figure(), record, name)
    except records.RunError:
        raise  # of the directory, not of the claim
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
    made, surprises = records.provenance("float64"), unexpected(rows)
    lines = [
        "# Claims",
        "",
        "; ".join(f"{counts[name]} {name}" for name in [*map(str, Verdict), "error"] if counts[name]) + ".",
        *(["", f"Not as expected: {', '.join(row['id'] for row in surprises)}."] if surprises else []),
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
        if row in surprises:
            lines += ["", f"**Expected: {row.get('expected')}.**"]
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
