"""What a basin measure says: counts per step size, shares and volumes with the interval that their design allows."""

import dataclasses
from functools import cached_property

import numpy as np

from gdstab import estimators
from gdstab._datasets import attributes, compact
from gdstab._results import frame, strings
from gdstab.basins.attractors import Attractors
from gdstab.basins.pictures import in_order
from gdstab.basins.tallies import Tally, last_of, quantiles
from gdstab.estimators import Estimate
from gdstab.outcomes import names

LEVELS = 0.5, 0.9, 0.99
"""Quantiles of the number of updates that a row reports."""
PAIRS = "both", "first_only", "second_only", "neither"
"""The columns of `Tally.paired`: where a point converges, at one step size and at the next."""


@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
    """How the orbits of one sample of points ended, for every step size: all of them run from the same points."""

    step_sizes: np.ndarray
    tally: Tally
    """The counts themselves, over all points; everything else is worked out from them."""
    samples: int
    """Points, and so lanes per step size."""
    design: str
    """How the points were drawn: independent, replicates, or strata."""
    kinds: tuple[str, ...]
    """Names of the kinds that converged orbits were sorted into; empty if nobody asked."""
    probabilities: np.ndarray | None
    """Of the post-strata."""
    weighted: bool
    largest_weight: float | None
    """That there can be; None if nobody said."""
    volume: float | None
    """Of the set that the points were drawn from."""
    confidence: float
    """Of every interval. Where sampling was sequential, that of the last look: see `measure_until`."""
    compile_seconds: float
    run_seconds: float
    attractors: Attractors | None = None
    """What the labels stand for; None if nobody asked."""
    label_of_cell: np.ndarray | None = None
    """The label of each cell of `tally.ends`."""
    origin: dict | None = None
    """Rule, loss, stopping rule, source, dtype and versions, in words: attributes of `to_xarray`."""
    outcomes: tuple[str, ...] = names()
    """What the codes mean: the five, and behind them those of `StoppingRule.until`."""

    @cached_property
    def counts(self) -> np.ndarray:
        """Lanes per step size and outcome code, [steps, 5 + verdicts of one's own]."""
        return self.tally.counts.sum(axis=1)

    def count(self, *outcomes: str) -> np.ndarray:
        """Lanes that ended in one of these ways, [steps]."""
        return self.counts[:, self._codes(outcomes)].sum(axis=1)

    def share(self, *outcomes: str) -> Estimate:
        """Share of the initial distribution that ends in one of these ways ("converged" by default), [steps] each.

        With weights it is `estimators.weighted` (where `largest_weight` is None for the largest one drawn, and its
        method says so), with post-strata `estimators.poststratified`; else what the design of the points asks for:
        `estimators.replicates`, `estimators.stratified`, or, for independent points, the exact interval of Clopper and
        Pearson.
        """
        codes = self._codes(outcomes or ("converged",))
        if self.weighted:
            hits, every = self.tally.weights[:, codes].sum(axis=1), self.tally.weights.sum(axis=1)
            largest = self.tally.heaviest if self.largest_weight is None else self.largest_weight
            found = estimators.weighted(tuple(hits.T), tuple(every.T), largest, self.confidence)
            told = "" if self.largest_weight is not None else ", if no weight exceeds those drawn"
            return found._replace(method=np.char.add(found.method, told))
        if self.probabilities is not None:
            hits, every = self.tally.labels[:, :, codes].sum(axis=2), self.tally.labels.sum(axis=2)
            return estimators.poststratified(hits, every, self.probabilities, self.confidence)
        return self._of_hits(self.tally.counts[:, :, codes].sum(axis=2))

    def label_share(self) -> Estimate:
        """Share of the initial distribution that ends on each attractor, [steps, labels] each.

        Every interval holds by itself, as that of `share` for the same design. The undecided are counted out.

        Raises
        ------
        ValueError
            If no labels were asked for.
        """
        if self.attractors is None:
            raise ValueError("expected a measure with labels, got one without; pass label= to `measure`")
        ends, steps, labels = self.tally.ends, len(self.step_sizes), self.attractors.num
        hits = np.zeros((labels, steps, self.tally.counts.shape[1]), np.int64)
        np.add.at(hits, (self.label_of_cell, ends.row, ends.part), ends.lanes)
        found = self._of_hits(hits.reshape(labels * steps, -1))
        return Estimate(*(field.reshape(labels, steps).T for field in found))

    def _codes(self, outcomes: tuple[str, ...]) -> list[int]:
        if unknown := [name for name in outcomes if name.lower() not in self.outcomes]:
            raise ValueError(f"expected outcomes from {list(self.outcomes)}, got {unknown}")
        return sorted({self.outcomes.index(name.lower()) for name in outcomes})

    def _of_hits(self, hits: np.ndarray) -> Estimate:
        """The estimate from hits per part, [rows, parts], by the design of the points."""
        parts = hits.shape[1]
        if parts > 1 and self.design == "replicates":
            return estimators.replicates(hits, self.samples // parts, self.confidence)
        if parts > 1 and self.design == "strata":
            return estimators.stratified(hits, self.samples // parts, confidence=self.confidence)
        return _exact(hits.sum(axis=1), self.samples, self.confidence)

    def steps_quantiles(self, levels=LEVELS, outcome: str = "converged") -> np.ndarray:
        """Numbers of updates of the lanes that ended so, [steps, levels]; see `tallies.quantiles`."""
        return quantiles(self.tally.histogram[:, *self._codes((outcome,))], levels)

    def rows(self) -> list[dict]:
        """One row per step size, of plain numbers: what a summary or a table holds.

        `interval` is that of `share`; `wilson` and `clopper_pearson` are what the counts alone say, as if the points
        were independent and equally weighted. `undecided_bounds` are the share with the undecided counted out and in,
        `undecided_interval` goes from the lower end of the first's interval to the upper end of the second's.
        `steps_quantiles` are over the converged lanes. With labels there is `labels`, a row for each: its name, lanes,
        share and interval.
        """
        share, possible = self.share("converged"), self.share("converged", "undecided")
        hits = self.count("converged")
        wilson = np.stack(estimators.wilson_interval(hits, self.samples, self.confidence), axis=-1)
        exact = np.stack(estimators.clopper_pearson_interval(hits, self.samples, self.confidence), axis=-1)
        steps = self.steps_quantiles()
        rows = []
        for i, step_size in enumerate(self.step_sizes.tolist()):
            interval = [float(share.low[i]), float(share.high[i])]
            rows.append({
                "step_size": step_size,
                "samples": self.samples,
                "counts": {self.outcomes[code]: int(self.counts[i, code]) for code in in_order(self.outcomes)},
                "kinds": dict(zip(self.kinds, self.tally.kinds[i].tolist(), strict=True)) or None,
                "share": float(share.value[i]),
                "standard_error": float(share.standard_error[i]),
                "interval": interval,
                "method": str(share.method[i]),
                "wilson": wilson[i].tolist(),
                "clopper_pearson": exact[i].tolist(),
                "undecided_bounds": [float(share.value[i]), float(possible.value[i])],
                "undecided_interval": [interval[0], float(possible.high[i])],
                "volume": None if self.volume is None else float(share.value[i]) * self.volume,
                "volume_interval": None if self.volume is None else [end * self.volume for end in interval],
                "steps_quantiles": {
                    str(level): int(count) if count >= 0 else None
                    for level, count in zip(LEVELS, steps[i], strict=True)
                },
                "lane_steps": int(self.tally.lane_steps[i]),
            })  # fmt: skip
        for row, labels in zip(rows, self._label_rows(), strict=False):
            row["labels"] = labels
        return rows

    def _label_rows(self) -> list[list[dict]]:
        """Per step size a row for each label; none without labels."""
        if self.attractors is None:
            return []
        share, lanes, names = self.label_share(), self.attractors.lanes, self.attractors.names
        return [
            [
                {
                    "name": name,
                    "lanes": int(lanes[step, label]),
                    "share": float(share.value[step, label]),
                    "interval": [float(share.low[step, label]), float(share.high[step, label])],
                }
                for label, name in enumerate(names)
            ]
            for step in range(len(self.step_sizes))
        ]

    def differences(self) -> list[dict]:
        """How the converged share changes from each step size to the next, from the same points: one row per pair.

        It holds the counts of points that converge at both, only the first, only the second, or neither, with
        `estimators.paired_difference` (the second minus the first) and `estimators.paired_ratio` (the second over the
        first; None where it is not finite). Undecided is not converged. The intervals take the points for independent,
        whatever the design.

        Raises
        ------
        ValueError
            If the points have weights: what happens to a point at two step sizes is counted, not weighed.
        """
        if self.weighted:
            raise ValueError(
                "expected points of equal weight, got weighted ones, whose fates at two step sizes are counted and not "
                "weighed; compare `share` at the two, or draw from the distribution itself"
            )
        if len(self.step_sizes) == 1:
            return []
        both, first, second, neither = self.tally.paired[1:].T
        change = estimators.paired_difference(both, second, first, neither, self.confidence)
        ratio = estimators.paired_ratio(both, second, first, neither, self.confidence)
        return [
            {
                "step_sizes": self.step_sizes[i : i + 2].tolist(),
                **dict(zip(PAIRS, self.tally.paired[i + 1].tolist(), strict=True)),
                "difference": float(change.value[i]),
                "difference_interval": [float(change.low[i]), float(change.high[i])],
                "ratio": _number(ratio.value[i]),
                "ratio_interval": [_number(ratio.low[i]), _number(ratio.high[i])],
            }
            for i in range(len(self.step_sizes) - 1)
        ]

    def to_xarray(self):
        """The counts as an `xarray.Dataset` over step sizes, outcomes, kinds and bins of the number of updates."""
        import xarray as xr  # noqa: PLC0415 (only needed here)

        share = self.share()
        data = {
            "counts": (("step_size", "outcome"), self.counts),
            "share": ("step_size", share.value),
            "low": ("step_size", share.low),
            "high": ("step_size", share.high),
            "histogram": (("step_size", "outcome", "bin"), self.tally.histogram),
            "paired": (("step_size", "pair"), self.tally.paired),
            "lane_steps": ("step_size", self.tally.lane_steps),
        }
        coords = {
            "step_size": self.step_sizes,
            "outcome": strings(self.outcomes),
            "pair": strings(PAIRS),
            "most_steps": ("bin", last_of(np.arange(self.tally.histogram.shape[-1]))),
        }
        if self.kinds:
            data["kinds"] = (("step_size", "kind"), self.tally.kinds)
            coords["kind"] = strings(self.kinds)
        if self.tally.counts.shape[1] > 1:
            data["counts_by_part"] = (("step_size", "part", "outcome"), self.tally.counts)
        if self.attractors is not None:
            more, names = self.attractors.arrays(), self.label_share()
            data |= {f"label_{name}": (("step_size", "attractor"), getattr(names, name)) for name in ("low", "high")}
            data |= {"label_share": (("step_size", "attractor"), names.value), **more}
            coords["attractor"] = strings(self.attractors.names)
        named = "samples", "design", "confidence", "compile_seconds", "run_seconds"
        tol = None if self.attractors is None else self.attractors.tol
        attrs = attributes(self, **{name: getattr(self, name) for name in named}, label_tol=tol)
        return compact(xr.Dataset(data, coords, attrs))

    def to_dataframe(self):
        """One row a step size, as a `pandas.DataFrame`: counts by outcome, share and interval, shares of labels."""
        dataset = self.to_xarray()
        wide = [name for name in ("histogram", "paired", "counts_by_part", "label_lanes") if name in dataset]
        return frame(dataset.drop_vars(wide), ("step_size",))


def _number(value) -> float | None:
    return float(value) if np.isfinite(value) else None


def _exact(hits, samples: int, confidence: float) -> Estimate:
    low, high = estimators.clopper_pearson_interval(hits, samples, confidence)
    value = hits / samples
    return Estimate(value, low, high, np.sqrt(value * (1 - value) / samples), np.full(value.shape, "clopper-pearson"))
