"""What the options of many studies have in common, each written once; `study_options` makes a dataclass of the rest."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, dataclass_transform

from gdstab.studies.options.losses import Loss, Scalar

T = TypeVar("T")
RUNS = Path("runs")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def study_options(kind: type[T]) -> type[T]:
    """A frozen dataclass, its own fields before those that it inherits: so they stand in the help.

    Results of a study lie in a directory that is called after it, unless it says another one.
    """
    if "out" not in vars(kind) and getattr(kind, "out", None) == RUNS / "study":
        kind.out = RUNS / re.sub("(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
        kind.__annotations__["out"] = Path
    made = dataclasses.dataclass(frozen=True, kw_only=True)(kind)
    fields = made.__dataclass_fields__
    own = {name: fields[name] for name in inspect.get_annotations(kind)}
    rest = {name: field for name, field in fields.items() if name not in own}
    made.__dataclass_fields__ = own | rest
    return made


@study_options
class RunOptions:
    """Where the results of a study lie, and how long its numbers are."""

    precision: Literal[32, 64] = 64
    """bits of a number"""
    out: Path = RUNS / "study"
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """continue the interrupted run that is in the directory, from the last part that it kept"""


@study_options
class LossOptions:
    """What is minimised, in studies that take any loss."""

    loss: Loss = dataclasses.field(default_factory=Scalar)
    """what is minimised: any of these, before or after all other options"""


@study_options
class StoppingOptions:
    """When an orbit ends: see `outcomes.StoppingRule`."""

    max_steps: int = 100_000
    """updates at the most; who has no verdict then is undecided"""
    loss_tol: float | None = 1e-12
    """converged when the loss is this close to its infimum"""
    grad_tol: float | None = 1e-10
    """converged when the norm of the gradient is at most this (saddles too: they are counted apart)"""
    escape_radius: float = 1e6
    """diverged when the norm of the parameters exceeds this"""
    max_period: int | None = 8
    """look for cycles up to this period"""


@study_options
class LabelOptions:
    """Where orbits end, beside how."""

    label: Literal["found", "by-minimum"] | None = None
    """tell apart where orbits end: attractors that are found by grouping end points, cycles included; or the minima
    that are known of the loss, points or the two branches of a hyperbola, each by its place"""
    label_tol: float | None = None
    """what of end points is not told apart: side of the cells that they are grouped by, by default a 64th of what the
    initial points fill; by-minimum: distance that belongs to one, by default a quarter of that between two"""


@study_options
class SeedOptions:
    """Of studies that draw random numbers."""

    seed: int = 0
    """of all random numbers"""


@study_options
class PlaneOptions:
    """A slice of parameter space."""

    plane: tuple[float, ...] = ()
    """the slice of parameter space: two indices of parameters (the others are 0), or a point and two directions, one
    after the other; by default the first two parameters"""


RuleName: TypeAlias = Literal[
    "descent", "heavy-ball", "nesterov", "rmsprop", "adam", "adamw", "adagrad", "lion", "sign", "normalised"
]


@dataclasses.dataclass(frozen=True)
class Update:
    """How one step is taken; a study that lets its user choose inherits from this."""

    rule: RuleName = "descent"
    """the optimiser; all but descent come from optax"""
    beta: float = 0.9
    """decay of the momentum: of heavy-ball, nesterov, adam, adamw, lion"""
    beta2: float = 0.999
    """decay of the second moment: of rmsprop, adam, adamw (of lion: of its momentum)"""
    eps: float = 1e-8
    """what keeps the adaptive rules from dividing by zero"""
    weight_decay: float = 0.0
    """added to the gradient as weight_decay * theta; adamw and lion decay apart from the gradient"""


Interval: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[Interval, Interval]

_MOST = 10_000_000
"""Numbers in a range: more are a mistake, and would fill the memory before anything else is looked at."""


def parse_range(text: str) -> list[float]:
    """Numbers from `low:high:number`, both ends included, or from a list with commas.

    >>> parse_range("0.1:0.5:3"), parse_range("0.5,2")
    ([0.1, 0.3, 0.5], [0.5, 2.0])
    """
    words = text.split(":")
    try:
        if len(words) == 1:
            return [float(word) for word in text.split(",")]
        low, high, number = float(words[0]), float(words[1]), int(words[2]) if len(words) == 3 else 0
    except ValueError:
        number = 0
    if number < 2 or not low < high:
        raise ValueError(
            f"expected low:high:number with low < high and at least two numbers, such as 0.02:0.6:30, or numbers with "
            f"commas between them, but got {text!r}"
        )
    if number > _MOST:
        raise ValueError(f"expected at most {_MOST:,} numbers in a range, but got {text!r}; lower the last one")
    return [(low * (number - 1 - i) + high * i) / (number - 1) for i in range(number)]
