"""What every option must satisfy by itself, under its own name, before anything is imported, run or written.

The rules go by the name of a field, so that an option means the same in every study; what hangs on the number of
parameters, or on two options at once, is looked at by the study.
"""

import dataclasses
import math
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

from gdstab.studies.options.base import parse_range

_MOST_UPDATES = 2**31 - 2


class Rule(NamedTuple):
    """An interval of finite numbers."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False  # without its ends
    whole: bool = False  # integers only

    def words(self) -> str:
        """What it asks for."""
        kind = "an integer" if self.whole else "a finite number"
        if (self.low, self.high) == (-math.inf, math.inf):
            return kind
        if self.high == math.inf:
            return "a positive finite number" if self.open else f"{kind} of at least {self.low:g}"
        if self.open or self.high != round(self.high):
            return f"{kind} {'above' if self.open else 'of at least'} {self.low:g} and below {self.high:g}"
        return f"{kind} from {self.low:g} to {self.high}"

    def holds(self, value: Any) -> bool:
        """Whether a value satisfies it."""
        try:
            number = operator.index(value) if self.whole else float(value)
        except (TypeError, ValueError, OverflowError):
            return False
        if isinstance(value, bool) or not (self.whole or math.isfinite(number)):
            return False
        return self.low < number < self.high if self.open else self.low <= number <= self.high


_POSITIVE, _SOME, _SHARE = Rule(0, open=True), Rule(0), Rule(0, 1, open=True)
_COUNT, _MAYBE, _TWO = Rule(1, whole=True), Rule(0, whole=True), Rule(2, whole=True)
_DECAY = Rule(0, math.nextafter(1, 0))
_FINITE = Rule()

_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("step_size", "step_sizes", "map_step_size", "saddle_step", "largest_step", "flow_step", "low", "high",
         "escape_radius", "radius", "radii", "spread", "lingering_spreads", "displacement", "time", "rtol",
         "undecided_rtol", "label_tol", "atol", "flow_tol", "step_share", "nu", "width", "accuracy", "curvature"),
        _POSITIVE,
    ),
    **dict.fromkeys(("loss_tol", "grad_tol", "eps", "weight_decay"), _SOME),
    **dict.fromkeys(("beta", "beta2", "betas"), _DECAY),
    **dict.fromkeys(
        ("samples", "starts", "flow_starts", "special_starts", "lingering_starts", "ball_starts", "datasets", "inputs",
         "hidden", "outputs", "hidden_layers", "cells", "chunk", "walks", "walk_steps", "kept", "bins", "cycles",
         "branches", "points", "every", "num_matvecs", "replicates", "resolution", "coarse", "contrast", "flow_steps"),
        _COUNT,
    ),
    **dict.fromkeys(("follow", "doublings", "hysteresis", "probe", "dense_limit", "coordinate", "num_steps",
                     "manifold_cells", "transient", "signs"), _MAYBE),
    **dict.fromkeys(("line_starts", "line_steps", "scan", "num_probes", "curvature_points", "ratios", "entropy_side"),
                    _TWO),
    "map_steps": Rule(16, whole=True), "max_steps": Rule(0, _MOST_UPDATES, whole=True), "max_period": _TWO,
    "seed": Rule(0, 2**63 - 1, whole=True), "confidence": _SHARE, "band": Rule(0, 0.5, open=True),
    **dict.fromkeys(("box", "boxes", "map_box", "value_range", "start", "point", "plane", "scales"), _FINITE),
    **dict.fromkeys(("loss.depth", "loss.dim", "loss.widths", "loss.neurons", "loss.features", "loss.width",
                     "loss.samples"), _COUNT),
    **dict.fromkeys(("loss.num", "loss.rank", "loss.seed"), _MAYBE),
    **dict.fromkeys(("loss.target", "loss.floor", "loss.interval", "loss.leak", "loss.diagonal", "loss.curvatures"),
                    _FINITE),
    "loss.scale": _POSITIVE, "loss.decay": _SOME,
}  # fmt: skip
"""What the numbers of an option must satisfy, by the name of its field."""

_APART: dict[tuple[str, str], Rule] = {
    ("Cycle", "max_period"): _COUNT, ("Bifurcation", "max_period"): _COUNT,
    ("Bifurcation", "max_steps"): Rule(1, _MOST_UPDATES, whole=True),
    ("CriticalMap", "nudge"): _SOME, ("Overfitting", "nudge"): _POSITIVE, ("Escape", "reach"): _POSITIVE,
    ("Boundary", "reach"): _COUNT, ("Multipliers", "num_steps"): _COUNT, ("Multipliers", "resolution"): _TWO,
    ("Lyapunov", "starts"): _TWO, ("FigureD1", "num_steps"): _COUNT,
    ("Cycle", "max_steps"): Rule(1, _MOST_UPDATES, whole=True),
    ("Bifurcation", "transient"): _COUNT,
}  # fmt: skip
"""Where a name stands for something else in one study, or more is asked of it there."""

_SIDES = {"box", "boxes", "map_box", "value_range", "betas", "loss.interval"}
"""Low and high ends, one after the other."""

_NOT_EMPTY = {"step_sizes", "radii", "hidden_layers", "lingering_spreads", "box", "cells", "loss.widths",
              "loss.curvatures", "loss.diagonal", "loss.target"}  # fmt: skip


def check(options) -> None:
    """Refuse an option that nothing could be done with.

    Raises
    ------
    ValueError
        In one line: which, what it takes, and what came.

    Examples
    --------
    >>> from gdstab.studies.options import Heatmap
    >>> check(Heatmap(escape_radius=-1.0))
    Traceback (most recent call last):
    ValueError: --escape-radius takes a positive finite number, but got -1.0
    """
    families = [kind.__name__ for kind in type(options).__mro__]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name == "loss" and dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                _check(f"loss.{inner.name}", getattr(value, inner.name), [type(value).__name__])
        else:
            _check(field.name, value, families)


def _check(name: str, value: Any, families: list[str]) -> None:
    """One option."""
    rule = next((_APART[family, name] for family in families if (family, name) in _APART), _RULES.get(name))
    if rule is None or value is None:
        return
    option = "--" + name.replace("_", "-")
    if isinstance(value, str):
        try:
            value = tuple(parse_range(value))
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from error
    numbers = list(_numbers(value))
    if not numbers and name in _NOT_EMPTY:
        raise ValueError(f"{option} takes at least one value, but got none")
    for number in numbers:
        if not rule.holds(number):
            raise ValueError(f"{option} takes {rule.words()}, but got {number}")
    if name in _SIDES:
        _check_sides(option, numbers)


def _check_sides(option: str, numbers: list[float]) -> None:
    if len(numbers) % 2:
        raise ValueError(f"{option} takes a low and a high end for each side, but got an odd number of values")
    for low, high in zip(numbers[::2], numbers[1::2], strict=True):
        if not (low < high and math.isfinite(high - low)):
            raise ValueError(f"{option} takes a low end and a higher one (low < high), but got {low:g} and {high:g}")


def _numbers(value: Any) -> Iterator[Any]:
    """All numbers in nested tuples."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _numbers(part)
    else:
        yield value
