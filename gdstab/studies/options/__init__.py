"""What can be asked of each study: frozen dataclasses without JAX or NumPy, so that a parser is built in no time.

The names are those of the Python interface, and a test holds that they stay so. The text under each field is its help
on the command line. The options of a study live in its folder; all of them can be had from here, too.
"""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

from gdstab import studies
from gdstab.studies.options.base import Box, Interval, RuleName, Update, parse_range
from gdstab.studies.options.checking import check
from gdstab.studies.options.losses import Loss
from gdstab.studies.tables import plain

__all__ = ["Box", "Interval", "Loss", "RuleName", "Update", "check", "configuration", "describe", "parse_range", "read"]

_LOSSES = {kind.__name__: kind for kind in typing.get_args(Loss)}
_LATER = {"label", "label_tol"}  # options that came later: at their defaults a configuration is what it was before
_NOT_IDENTITY = {"out", "overwrite", "resume"}  # where a result lies is no part of what it is
_FEW = 4  # numbers of a loss that are all named; of more, only those that are not the default
_NUMBERS = {
    "heavy-ball": ("beta",),
    "nesterov": ("beta",),
    "rmsprop": ("beta2",),
    "adam": ("beta", "beta2"),
    "adamw": ("beta", "beta2"),
    "lion": ("beta", "beta2"),
}


def __getattr__(name: str) -> Any:
    """The options of a study, from its folder, or of a loss."""
    if name in _LOSSES:
        return _LOSSES[name]
    if name == "STUDIES":
        return {study: studies.options_of(study) for study in studies.names()}
    for study in studies.names():
        if name == studies.class_name(study):
            return studies.options_of(study)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def configuration(options) -> dict:
    """All that decides a run's result, as plain JSON values.

    >>> from gdstab.studies.heatmap import Heatmap
    >>> configuration(Heatmap())["loss"]
    {'name': 'scalar', 'depth': 2, 'target': 1.0, 'scale': 1.0}
    """
    fields = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_IDENTITY}
    for name in _LATER & {
        field.name for field in dataclasses.fields(options) if fields.get(field.name) == field.default
    }:
        del fields[name]
    if "loss" in fields:
        fields["loss"] = {"name": type(options.loss).__name__.lower(), **fields["loss"]}
    return {"study": type(options).__name__.lower(), **plain(fields, str)}


def read(configuration: dict, **more: Any):
    """The options that a run was made with, from its configuration: what `configuration` wrote, read back.

    Raises
    ------
    ValueError
        If no study of this version has that name, or these options.

    Examples
    --------
    >>> from gdstab.studies.heatmap import Heatmap
    >>> read(configuration(Heatmap(box=((-1, 1), (0, 2))))) == Heatmap(box=((-1, 1), (0, 2)))
    True
    """
    study = configuration.get("study")
    kind = next((kind for kind in studies.all_options() if kind.__name__.lower() == study), None)
    if kind is None:
        raise ValueError(f"this version of gdstab has no study {study!r}; it was written by another one")
    given = {name: value for name, value in configuration.items() if name != "study"}
    hints = typing.get_type_hints(kind)
    unknown = sorted(given.keys() - hints.keys())
    if unknown:
        raise ValueError(f"{study} has no option {', '.join(unknown)} in this version of gdstab; another one wrote it")
    if "loss" in given:
        inner = {name: value for name, value in given["loss"].items() if name not in {"name", "sha256"}}
        loss = next(kind for name, kind in _LOSSES.items() if name.lower() == given["loss"]["name"])
        given["loss"] = loss(**{name: _shaped(typing.get_type_hints(loss)[name], v) for name, v in inner.items()})
    return kind(**{name: v if name == "loss" else _shaped(hints[name], v) for name, v in given.items()}, **more)


def _shaped(hint: Any, value: Any) -> Any:
    """A value that JSON has read as what a field's annotation says: lists as tuples, words as numbers."""
    parts = [part for part in typing.get_args(hint) if part not in {types.NoneType, Ellipsis}]
    if isinstance(value, list):
        inner = next((part for part in parts if typing.get_origin(part) is tuple), None)
        many = typing.get_origin(hint) is not tuple and inner is not None  # such as Box | None
        kinds = typing.get_args(inner) if many else typing.get_args(hint)
        kinds = [kinds[0]] * len(value) if kinds and kinds[-1] is Ellipsis else kinds
        return tuple(_shaped(kind, entry) for kind, entry in zip(kinds, value, strict=True))
    if hint is Path:
        return Path(value)
    floats = hint is float or float in parts
    return float(value) if floats and isinstance(value, int | str) and not isinstance(value, bool) else value


def describe(options) -> str:
    """The loss by its name on the command line, with its numbers, and the update rule.

    >>> from gdstab.studies.options import Cycle, Heatmap, Relu
    >>> describe(Heatmap())
    'loss:scalar (depth 2, target 1, scale 1), gradient descent'
    >>> describe(Cycle(rule="heavy-ball", loss=Relu(neurons=3)))
    'loss:relu (neurons 3), heavy-ball (beta 0.9)'
    """
    parts = [describe_loss(options.loss)] if hasattr(options, "loss") else []
    return ", ".join([*parts, _rule(options)])


def describe_loss(loss) -> str:
    """As `describe`, of the loss alone."""
    fields = dataclasses.fields(loss)
    if len(fields) > _FEW:
        fields = [field for field in fields if getattr(loss, field.name) != field.default]
    numbers = ", ".join(f"{field.name} {_value(getattr(loss, field.name))}" for field in fields)
    return f"loss:{type(loss).__name__.lower()}" + (f" ({numbers})" if numbers else "")


def _rule(options) -> str:
    rule = getattr(options, "rule", "descent")
    names = [*_NUMBERS.get(rule, ()), *(["weight_decay"] if getattr(options, "weight_decay", 0) else [])]
    numbers = ", ".join(f"{name.replace('_', ' ')} {_value(getattr(options, name))}" for name in names)
    return ("gradient descent" if rule == "descent" else rule) + (f" ({numbers})" if numbers else "")


def _value(value) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
