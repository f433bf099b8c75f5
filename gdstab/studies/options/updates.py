"""Which update rule: the fields that every study of optimisers shares."""

import dataclasses
from typing import Literal, TypeAlias

RuleName: TypeAlias = Literal[
    "descent",
    "heavy-ball",
    "nesterov",
    "rmsprop",
    "adam",
    "adamw",
    "adagrad",
    "lion",
    "sign",
    "normalised",
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
