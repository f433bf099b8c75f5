"""The figures of the papers, drawn again, their numbers beside ours; `run` finds them by name.

`a` holds those of paper A; those of D are modules. Each has `prepare`, `phases` and `measure` as every study has,
`compare(options, summary, dataset) -> rows`, `shows(options) -> text` and `draw(record)`; its options stand in
`gdstab.studies.options.reproduce.FIGURES`.
"""

from collections.abc import Callable

from gdstab.studies import lifecycle
from gdstab.studies.options.reproduce import options_of
from gdstab.studies.phases import Phase
from gdstab.studies.reproduce import study
from gdstab.studies.reproduce.study import Reproduction as Reproduction

__all__ = ["Reproduction", "phases", "run"]


def run(name: str, options=None, *, progress: Callable | None = None) -> Reproduction:
    """Draw a figure again, by default with the numbers of the paper, or read it back where that was done before.

    Raises
    ------
    ValueError
        If there is no figure of that name, or its study refuses the options.
    """
    return Reproduction(*lifecycle.run(options_of(name)() if options is None else options, progress=progress))


def phases(name: str, options=None) -> dict[str, Phase]:
    """What the run of a figure goes through."""
    return study.phases(options_of(name)() if options is None else options)
