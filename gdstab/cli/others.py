"""The commands that are no study: `gdstab reproduce`, `claims`, `draw` and `info`, a function each."""

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from gdstab.cli import driver, process, report
from gdstab.studies.options.reproduce import FIGURES, options_of
from gdstab.studies.phases import Phase
from gdstab.studies.tables import columns

_PACKAGES = ("jaxlib", "equinox", "optax", "xarray", "zarr", "tyro", "matplotlib")


def reproduce(arguments: Sequence[str]) -> int:
    """Draw a figure of the papers again, or read it back; say what it shows, with its numbers beside the paper's."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_figures())
        return 0
    name, *rest = arguments
    if name.startswith("--"):
        raise ValueError(f"the name of a figure comes first, one of {', '.join(FIGURES)}, but got {name}")
    options = process.parse(options_of(name), rest, f"reproduce {name}")
    process.configure(getattr(options, "precision", 64))
    from gdstab.studies import reproduce as figures  # noqa: PLC0415 (JAX is configured first)
    from gdstab.studies.reproduce import show  # noqa: PLC0415

    with report.Progress(figures.phases(name, options)) as progress:
        done = figures.run(name, options, progress=progress)
    print(show.table(done.record.summary), f"\n{driver.where(done)}", sep="\n")
    return 0


def _figures() -> str:
    lines = [f"  {name}  {kind.__doc__.splitlines()[0]}" for name, kind in FIGURES.items()]
    return "\n".join([
        "usage: gdstab reproduce NAME [--out DIRECTORY] [options]",
        "",
        *lines,
        "",
        "The defaults are the paper's numbers, or fewer where those take more than some minutes (D.1, D.3: images and",
        "updates); `gdstab reproduce NAME --help` lists them, and says what the paper has.",
    ])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Claims:
    """Every numbered statement of the papers, tested."""

    paper: str | None = None
    """only this paper, such as A"""
    only: str | None = None
    """only this statement, such as A.thm12"""
    out: Path = Path("runs/claims")
    """directory of the report"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """continue the interrupted run that is in the directory"""


def claims(arguments: Sequence[str]) -> int:
    """Test the statements and print their verdicts; exit code 1 if one is not as expected, or raised an error."""
    options = process.parse(Claims, arguments, "claims")
    process.configure(64)
    from gdstab import claims as statements  # noqa: PLC0415 (JAX is configured first)

    names = [each.id for each in statements.registered(options.paper, options.only)]
    with report.Progress(dict.fromkeys(names, Phase())) as progress:
        rows = statements.run_report(
            options.paper, options.only, options.out, progress=progress, overwrite=options.overwrite,
            resume=options.resume,
        )  # fmt: skip
    lines = [(row["id"], "error" if row.get("error") else row["verdict"], f"{row['seconds']:.2f}") for row in rows]
    print(columns([("statement", "verdict", "seconds"), *lines]))
    for row in statements.unexpected(rows):
        said = row.get("error") or f"{row['verdict']}, but expected: {row['expected']}"
        print(f"{row['id']}: {said}")
    print(f"Results: {options.out}")
    return statements.exit_code(rows)


def draw(arguments: Sequence[str]) -> int:
    """Draw the figures of finished runs again, from what these wrote: nothing is run."""
    if not arguments or set(arguments) & {"-h", "--help"}:
        print("usage: gdstab draw DIRECTORY ...\n\nDraws the figures of finished runs again, from what these wrote.")
        return 0
    wrong = [word for word in arguments if word.startswith("-")]
    if wrong:
        raise ValueError(f"it takes directories of finished runs and no options, but got {wrong[0]}")
    from gdstab.records import load  # noqa: PLC0415 (imports JAX)

    for path in map(Path, arguments):
        record = load(path)
        if not record.complete:
            raise ValueError(f"{path} holds an interrupted run: finish it with --resume, then draw it")
        process.configure(record.configuration.get("precision", 64))
        from gdstab.studies import lifecycle  # noqa: PLC0415 (JAX is configured first)

        lifecycle.draw(record)
        print(f"Figures: {path}")
    return 0


@dataclasses.dataclass(frozen=True)
class Info:
    """Devices, versions, precision and cores of a run."""

    precision: Literal[32, 64] = 64
    """bits of a number"""


def info(arguments: Sequence[str]) -> int:
    """Print what a run would use."""
    precision = process.parse(Info, arguments, "info").precision
    process.configure(precision)
    import jax  # noqa: PLC0415 (configured first)

    from gdstab import records  # noqa: PLC0415

    found = records.provenance(f"float{precision}")
    found.pop("seed")
    found.pop("finished")
    found["compilation_cache"] = jax.config.jax_compilation_cache_dir
    found |= {name: _version(name) for name in _PACKAGES}
    print(columns(found.items()))
    if found["platform"] == "tpu":
        print("\nOn a TPU use --precision 32; non-symmetric eigenvalues are computed on the host.")
    return 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
