"""The words of a command line as the options of a study; what is wrong with them in one line, before anything heavy.

Options may stand in any order, before or behind the loss. `--loss.path my.py:fn` alone means `loss:custom`, as any
`--loss.` option that the loss of the study by default does not have, and only one other has.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

_ALIASES = {"--output": "--out"}


class Option(NamedTuple):
    """One option and what may follow it."""

    name: str  # with its dashes
    place: tuple[str, ...]  # the field, that of a loss behind "loss"
    types: tuple[Any, ...]  # of the values of one row: float, int, str, Path, or a Literal; none for a flag
    shape: Any  # the annotation, by which values are put together
    rows: bool = False  # any number of rows
    optional: bool = False  # None is a value
    required: bool = False


def understand(kind: type, words: Sequence[str]):
    """The options of a study from the words of the command line.

    Raises
    ------
    ValueError
        In one line: the first thing that makes no sense, and what to write instead.

    Examples
    --------
    >>> from gdstab.studies.options import Heatmap
    >>> understand(Heatmap, "--loss.scale 0.5 --step-size 0.2 --output here".split()).loss
    Scalar(depth=2, target=1.0, scale=0.5)
    >>> understand(Heatmap, ["--stepsize", "0.2"])
    Traceback (most recent call last):
    ValueError: there is no option --stepsize. Did you mean --step-size?
    """
    given, named = _group(words, losses_of(kind))
    loss = _loss(kind, given, named)
    known = options_of(kind) | (options_of(loss, "loss.") if loss else {})
    found: dict[tuple[str, ...], Any] = {}
    for name, values in given.items():
        if name not in known:
            raise ValueError(_no_such_option(name, kind, loss if named else None))
        found[known[name].place] = _value(known[name], name, values)
    top = {place[0]: value for place, value in found.items() if len(place) == 1}
    if loss:
        inner = {place[1]: value for place, value in found.items() if len(place) == 2}
        default = _default_loss(kind)
        for option in options_of(loss, "loss.").values():
            if option.required and option.place not in found:
                raise ValueError(f"loss:{loss.__name__.lower()} needs {option.name}, such as {option.name} my.py:fn")
        top["loss"] = dataclasses.replace(default, **inner) if type(default) is loss else loss(**inner)
    return kind(**top)


@functools.cache
def options_of(kind: type, prefix: str = "") -> dict[str, Option]:
    """The options that the fields of a dataclass stand for, by name; that of its loss aside.

    >>> from gdstab.studies.options import Heatmap
    >>> [kind.__name__ for kind in options_of(Heatmap)["--box"].types]
    ['float', 'float', 'float', 'float']
    """
    hints, found = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name == "loss":
            continue
        name, place = prefix + field.name.replace("_", "-"), (*prefix.split(".")[:-1], field.name)
        option = _option(f"--{name}", place, hints[field.name])
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        found[option.name] = option._replace(required=required)
        if not option.types:
            found[f"--no-{name}"] = option
    return found


def losses_of(kind: type) -> dict[str, type]:
    """The losses that a study lets its user choose from, by their word.

    >>> from gdstab.studies.options import Critical
    >>> list(losses_of(Critical))
    ['loss:scalar', 'loss:vector', 'loss:linear']
    """
    hint = typing.get_type_hints(kind).get("loss")
    return {f"loss:{part.__name__.lower()}": part for part in typing.get_args(hint) or (hint,) if part is not None}


def _option(name: str, place: tuple[str, ...], hint: Any) -> Option:
    parts = typing.get_args(hint)
    optional = types.NoneType in parts
    shape = next(part for part in parts if part is not types.NoneType) if optional else hint
    rows = typing.get_origin(shape) is tuple and typing.get_args(shape)[-1] is Ellipsis
    return Option(name, place, tuple(_flat(shape)), shape, rows, optional)


def _flat(shape: Any) -> Iterator[Any]:
    """The types of the values of one row, in order; none for a flag."""
    if typing.get_origin(shape) is tuple:
        for part in typing.get_args(shape):
            yield from _flat(part) if part is not Ellipsis else ()
    elif shape is not bool:
        yield shape


def _group(words: Sequence[str], losses: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The values behind every option, and the words for losses."""
    given: dict[str, list[str]] = {}
    named: list[str] = []
    values: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            name = name.replace("_", "-")
            values = given[_ALIASES.get(name, name)] = [value] if equals else []
        elif word.startswith("loss:"):
            if word not in losses:
                raise ValueError(_no_such_loss(word, losses))
            named.append(word)
            values = None
        elif values is None:
            raise ValueError(_stray(word, losses))
        else:
            values.append(word)
    if len(named) > 1:
        raise ValueError(f"expected one loss, but got {' and '.join(named)}: keep one")
    return given, named


def _loss(kind: type, given: dict[str, list[str]], named: list[str]) -> type | None:
    """The loss that is named, or meant by its options, or that of the study by default; None if it has none."""
    losses, default = losses_of(kind), _default_loss(kind)
    if named:
        return losses[named[0]]
    asked = {name for name in given if name.startswith("--loss.")}
    if default is None or asked <= options_of(type(default), "loss.").keys():
        return None if default is None else type(default)
    fitting = [word for word, loss in losses.items() if asked <= options_of(loss, "loss.").keys()]
    if len(fitting) > 1:
        raise ValueError(f"{' '.join(sorted(asked))} may belong to {', '.join(fitting)}: name the one you mean")
    return losses[fitting[0]] if fitting else type(default)


def _default_loss(kind: type):
    field = next((field for field in dataclasses.fields(kind) if field.name == "loss"), None)
    return None if field is None else field.default_factory()


def _value(option: Option, name: str, words: list[str]) -> Any:
    """What an option and the words behind it stand for."""
    if not option.types:
        if words:
            positive = option.name
            raise ValueError(f"{name} takes no value, but got {words[0]!r}: write {positive} or --no-{positive[2:]}")
        return name == option.name
    if option.optional and [word.lower() for word in words] == ["none"]:
        return None
    row = len(option.types)
    if option.rows:
        if len(words) % row:
            raise ValueError(f"{name} takes {row} values each, but got {len(words)}: {' '.join(words)}")
        count = len(words) // row
        each = typing.get_args(option.shape)[0]
        values = iter([_convert(option, kind, word) for kind, word in zip(option.types * count, words, strict=True)])
        return tuple(_shaped(each, values) for _ in range(count))
    if len(words) != row:
        hint = f"; write {name} {','.join(words)}" if option.types == (str,) and len(words) > 1 else ""
        number = "one value" if row == 1 else f"{row} values"
        raise ValueError(f"{name} takes {number}, but got {len(words) or 'none'}{': ' if words else ''}"
                         f"{' '.join(words)}{hint}")  # fmt: skip
    return _shaped(option.shape, iter([_convert(option, *pair) for pair in zip(option.types, words, strict=True)]))


def _shaped(shape: Any, values: Iterator[Any]) -> Any:
    """Values put together as nested tuples."""
    if typing.get_origin(shape) is tuple:
        return tuple(_shaped(part, values) for part in typing.get_args(shape))
    return next(values)


def _convert(option: Option, kind: Any, word: str) -> Any:
    """A word as a value; an integer may be written as 1e6 or 8.0."""
    if typing.get_origin(kind) is Literal:
        return _choose(option, typing.get_args(kind), word)
    try:
        if kind is int:
            return _integer(word)
        return kind(word)
    except (ValueError, OverflowError):
        pass
    what = {int: "an integer", float: "a number"}.get(kind, kind.__name__)
    what = f"{what}s with spaces between".replace("an ", "").replace("a ", "") if option.rows else what
    what += " or None" if option.optional else ""
    raise ValueError(f"{option.name} takes {what}, but got {word!r}")


def _integer(word: str) -> int:
    """
    >>> _integer("1e6"), _integer("8.0"), _integer("1_000")
    (1000000, 8, 1000)
    """
    try:
        return int(word)
    except ValueError:
        number = float(word)
        if not (math.isfinite(number) and number == int(number)):
            raise
        return int(number)


def _choose(option: Option, choices: tuple[Any, ...], word: str) -> Any:
    for choice in choices:
        if str(choice) == word or (isinstance(choice, int) and word.replace(".0", "") == str(choice)):
            return choice
    raise ValueError(
        f"{option.name} takes one of {', '.join(map(str, choices))}, but got {word!r}.{hint(word, map(str, choices))}"
    )


def hint(word: str, candidates: Iterable[str]) -> str:
    """A question, if something there is spelled alike.

    >>> hint("adamm", ["adam", "lion"])
    ' Did you mean adam?'
    """
    close = closest(word, candidates)
    return f" Did you mean {close}?" if close else ""


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """What is spelled most alike; None if nothing is."""
    candidates = list(candidates)
    longer = [name for name in candidates if name.startswith(word) and len(word) > 3]
    return next(iter(longer or difflib.get_close_matches(word, candidates, n=1, cutoff=0.7)), None)


def _no_such_option(name: str, kind: type, loss: type | None) -> str:
    """With what was perhaps meant: also an option of a loss, written without its `loss.`."""
    losses = losses_of(kind)
    below = [option for each in ([loss] if loss else losses.values()) for option in options_of(each, "loss.")]
    known = [*options_of(kind), *(_ALIASES), *below]
    bare = [option for option in below if option.removeprefix("--loss.") == name[2:]]
    who = f"loss:{loss.__name__.lower()} has" if loss and name.startswith("--loss.") else "there is"
    said = bare[0] if bare else closest(name, known)
    return f"{who} no option {name}." + (f" Did you mean {said}?" if said else " See --help.")


def _no_such_loss(word: str, losses: Iterable[str]) -> str:
    losses = list(losses)
    if not losses:
        return f"this command takes no loss, but got {word}"
    return f"there is no {word}.{hint(word, losses)} The losses are {', '.join(losses)}"


def _stray(word: str, losses: Iterable[str]) -> str:
    known = [loss for loss in losses if loss == f"loss:{word}"]
    if known:
        return f"{word!r} stands alone. Did you mean {known[0]}?"
    return f"{word!r} belongs to no option; options begin with two dashes, see --help"
