"""How surely: shares that were counted, by whatever design, each with an interval that covers; on the host.

`intervals` holds the intervals of one share and what undecided samples do to it, `designs` strata and replicates,
`weights` importance weights, `paired` the comparison of two shares of the same samples, `sequential` sampling to a
target width.
"""

from gdstab.estimators.designs import poststratified, replicates, stratified
from gdstab.estimators.intervals import (
    Estimate,
    Interval,
    UndecidedBounds,
    clopper_pearson_interval,
    plain,
    rule_of_three,
    undecided_bounds,
    wilson_interval,
)
from gdstab.estimators.paired import paired_difference, paired_ratio
from gdstab.estimators.sequential import Plan, SequentialEstimate, examine, plan_looks, sample_to_width
from gdstab.estimators.weights import effective_sample_size, weighted

__all__ = [
    "Estimate",
    "Interval",
    "Plan",
    "SequentialEstimate",
    "UndecidedBounds",
    "clopper_pearson_interval",
    "effective_sample_size",
    "examine",
    "paired_difference",
    "paired_ratio",
    "plain",
    "plan_looks",
    "poststratified",
    "replicates",
    "rule_of_three",
    "sample_to_width",
    "stratified",
    "undecided_bounds",
    "weighted",
    "wilson_interval",
]
__dir__ = __all__.copy  # nothing else is for users
