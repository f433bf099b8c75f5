"""The register of claims: what a claim is, how its verdict is passed, and how claims are run."""

import contextlib
import difflib
import enum
import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from gdstab._numerics import check_precision
from gdstab.records import RunError
from gdstab.studies.tables import plain

_FIRST, _LAST = ("main", "contrib"), ("fig", "app", "exp", "conj", "open")
"""Kinds of claims before the numbered statements of a paper, and behind them; what has no number comes last of all."""

Truth: TypeAlias = bool | np.bool_


class Verdict(enum.StrEnum):
    """What is said of a statement *as printed*."""

    HOLDS = "holds"
    CORRECTED = "holds as corrected"  # a constant, sign, index or hypothesis is repaired, and the conclusion stands
    FAILS = "fails: counterexample"  # the conclusion is false
    OPEN = "open: evidence"
    NOT_TESTABLE = "not testable: reason"


class ClaimError(AssertionError):
    """A computation did not come out as it must, so that no verdict can be passed."""


class Finding(NamedTuple):
    """What a claim returns."""

    verdict: Verdict
    numbers: dict[str, Any]
    note: str = ""
    """What was repaired, where the counterexample lies, which reading was used, or why nothing can be tested."""
    figure: Callable[[], Any] | None = None
    """Draws the figure; asked only by the report."""


class Claim(NamedTuple):
    """One numbered statement, and the function that tests it."""

    id: str
    statement: str
    source: str
    test: Callable[[Any], Finding]
    expected: Verdict | None = None
    """The verdict that is known; another one is news, or a fault. None where none is known yet."""

    @property
    def place(self) -> tuple:
        """Where it stands in the papers: what these announce, their statements by number, and the rest.

        >>> places = [Claim(name, "", "", None).place for name in ("A.thm7", "A.thm12", "A.fig1b", "B.thm1")]
        >>> sorted(places) == places
        True
        """
        name = self.id.partition(".")[2]
        kind, numbers = re.match("[a-z]*", name)[0], [int(digits) for digits in re.findall(r"\d+", name)]
        last = _LAST.index(kind) if kind in _LAST else -1 if numbers else len(_LAST)
        return self.paper, -2 if kind in _FIRST else last, numbers, name if last < len(_LAST) else ""

    @property
    def paper(self) -> str:
        """The letter of the paper.

        >>> Claim("A.thm12", "", "", None).paper
        'A'
        """
        return self.id.partition(".")[0]


_CLAIMS: dict[str, Claim] = {}


def claim(name: str, *, source: str, statement: str, expected: Verdict | None = None) -> Callable:
    """Register a function `key -> Finding` under an identifier such as `A.thm12`; the function stays as it is."""

    def register(test):
        if name in _CLAIMS:
            raise ValueError(f"the claim {name} is registered twice: give each its own identifier")
        _CLAIMS[name] = Claim(name, statement, source, test, expected)
        return test

    return register


def registered(paper: str | None = None, only: str | Sequence[str] | None = None) -> list[Claim]:
    """The claims of a paper, or all, in the order of the papers; or those named, as they are named.

    Raises
    ------
    ValueError
        If there is no such claim or paper.
    """
    names = [only] if isinstance(only, str) else only
    names = sorted(_CLAIMS, key=lambda name: _CLAIMS[name].place) if names is None else list(names)
    for name in names:
        if name not in _CLAIMS:
            close = difflib.get_close_matches(name, _CLAIMS, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"there is no claim {name!r}.{hint} The claims are {', '.join(_CLAIMS)}")
    papers = sorted({each.paper for each in _CLAIMS.values()})
    if paper is not None and paper not in papers:
        raise ValueError(f"there are no claims of a paper {paper!r}; the papers are {', '.join(papers)}")
    found = [_CLAIMS[name] for name in names if paper in {None, _CLAIMS[name].paper}]
    if not found:
        raise ValueError(f"none of {', '.join(names)} belongs to paper {paper}")
    return found


def judge(printed: Truth, corrected: Truth | None = None) -> Verdict:
    """Pass the verdict: whether the checks of the statement as printed and, if there is one, of its repair came out.

    Raises
    ------
    ClaimError
        If the repaired statement fails its checks as well.

    Examples
    --------
    >>> judge(True).value, judge(False, corrected=True).value, judge(False).value
    ('holds', 'holds as corrected', 'fails: counterexample')
    """
    if printed:
        return Verdict.HOLDS
    if corrected is None:
        return Verdict.FAILS
    require(corrected, "the statement fails as printed, and its repair fails as well")
    return Verdict.CORRECTED


def require(condition: Truth, message: str) -> None:
    """Stop a claim whose evidence does not come out, whatever its verdict would have been."""
    if not condition:
        raise ClaimError(message)


_KEEPER: ContextVar[Callable[[str, Callable[[], dict]], dict]] = ContextVar("keeper", default=lambda _, make: make())


@contextlib.contextmanager
def keeping(keeper: Callable[[str, Callable[[], dict]], dict]) -> Iterator[None]:
    """While claims run: `keeper(name, make)` gives the piece of that name, as it was kept, or as `make` makes it."""
    token = _KEEPER.set(keeper)
    try:
        yield
    finally:
        _KEEPER.reset(token)


def kept(compute: Callable, *args, of: tuple | None = None):
    """What `compute(*args)` gives, a piece of a claim that takes long; an interrupted run does not compute it again.

    It is made of arrays, numbers, text, None, lists, tuples and dictionaries, and named by the function with `of`, or
    with the arguments, as printed: no arrays but keys. Arrays come as NumPy's, whether they were read back or not.

    >>> kept(divmod, 7, 2)
    (3, 1)
    """
    name = f"{compute.__module__}.{compute.__qualname__}{args if of is None else of}"
    return _opened(_KEEPER.get()(name, lambda: _packed(compute(*args))))


def _packed(piece) -> dict[str, np.ndarray]:
    """Arrays by name: those of a piece, and under `text` all the rest."""
    arrays = {}

    def put(value):
        if isinstance(value, dict):
            return {"dict": [[put(key), put(entry)] for key, entry in value.items()]}
        if type(value) in {list, tuple}:
            return {type(value).__name__: [put(entry) for entry in value]}
        if hasattr(value, "dtype"):
            arrays[name := f"array_{len(arrays)}"] = np.asarray(value)
            return {"array": name}
        if value is None or type(value) in {bool, int, float, str}:
            return value
        raise TypeError(f"a piece of a claim cannot hold {type(value).__name__}: make it arrays, lists or dictionaries")

    return {"text": np.array(json.dumps(put(piece))), **arrays}


def _opened(arrays: dict[str, np.ndarray]):
    def take(value):
        if not isinstance(value, dict):
            return value
        ((kind, held),) = value.items()
        if kind == "array":
            return arrays[held][()]
        if kind == "dict":
            return {take(key): take(entry) for key, entry in held}
        return (tuple if kind == "tuple" else list)(map(take, held))

    return take(json.loads(str(arrays["text"])))


def evaluate(each: Claim) -> tuple[dict, Finding | None]:
    """Run one claim on its own fixed key: its row, and what it found (None where it raised)."""
    expected = None if each.expected is None else each.expected.value
    row = {"id": each.id, "source": each.source, "statement": each.statement, "expected": expected, "verdict": None}
    begin, found = time.perf_counter(), None
    try:
        found = each.test(jax.random.key(zlib.crc32(each.id.encode())))
        row |= {"verdict": Verdict(found.verdict).value, "numbers": plain(found.numbers, str), "note": found.note}
    except RunError:
        raise  # of the directory, not of the claim
    except Exception as error:  # a row of its own: it stops no other claim and is not hidden
        row |= {"numbers": {}, "note": "", "error": f"{type(error).__name__}: {error}"}
    return row | {"seconds": round(time.perf_counter() - begin, 3)}, found


def chosen_claims(paper: str | None = None, only: str | Sequence[str] | None = None) -> list[Claim]:
    """As `registered`, where they can be run: refused where JAX has 64 bits disabled."""
    check_precision(64)
    return registered(paper, only)


def run(paper: str | None = None, only: str | Sequence[str] | None = None) -> list[dict]:
    """Run the claims of a paper, or those named, or all.

    Returns
    -------
    A row for each: `id`, `source`, `statement`, `expected`, `verdict`, `numbers`, `note`, `seconds`; a claim that
    raised has the verdict None and an `error`.

    Raises
    ------
    ValueError
        If there is no such claim or paper, or JAX has 64 bits disabled.

    Examples
    --------
    >>> [row] = run(only="A.thm20")
    >>> row["verdict"]
    'holds'
    """
    return [evaluate(each)[0] for each in chosen_claims(paper, only)]


def unexpected(rows: Iterable[dict]) -> list[dict]:
    """The rows that need looking at: those that raised, and those whose verdict is not the one that is known.

    >>> held = {"id": "A.thm7", "expected": "holds as corrected", "verdict": "holds as corrected"}
    >>> [row["id"] for row in unexpected([held, {**held, "id": "A.thm9", "verdict": "holds"}])]
    ['A.thm9']
    """
    return [row for row in rows if "error" in row or row.get("expected") not in {None, row["verdict"]}]


def exit_code(rows: Iterable[dict]) -> int:
    """0 if every claim came to the verdict that is known, 1 if one did not, or raised.

    >>> exit_code([{"id": "A.thm7", "verdict": "holds"}]), exit_code([{"id": "A.thm7", "error": "ValueError: ..."}])
    (0, 1)
    """
    return int(bool(unexpected(rows)))
