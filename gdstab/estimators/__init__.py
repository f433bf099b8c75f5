"""How surely: confidence intervals for shares that were counted, on the host, for one count or arrays of them."""

from gdstab.estimators.intervals import Interval, clopper_pearson_interval, rule_of_three, wilson_interval

__all__ = ["Interval", "clopper_pearson_interval", "rule_of_three", "wilson_interval"]
