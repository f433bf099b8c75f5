"""The parts of the work: in what order they are done, where their orbits start, how far these step."""

from collections.abc import Iterator
from typing import NamedTuple

from gdstab.studies.overfitting import Overfitting, endings
from gdstab.studies.overfitting.endings import Target
from gdstab.theory import linear

KINDS = ("descent", "flow", "special", "lingering", "staircase")
"""What parts there are; their places tell their random numbers apart."""
RANDOM = "random starts"
"""The phase of `descent` and `flow`."""


class Unit(NamedTuple):
    """A part of the work, which is written down when it is done."""

    kind: str  # one of `KINDS`
    network: int  # its place among the numbers of hidden layers
    data: int  # the number of the target
    spread: int = 0  # the place among the spreads of lingering
    span: tuple[int, int] = (0, 0)  # of the random starts, where they are cut into pieces


def network_widths(options: Overfitting) -> list[tuple[int, ...]]:
    """The widths of each network, from inputs to outputs."""
    return [(options.inputs, *[options.hidden] * number, options.outputs) for number in options.hidden_layers]


def units(options: Overfitting) -> Iterator[Unit]:
    """The parts of the work, in order."""
    for network in range(len(options.hidden_layers)):
        yield from (Unit(kind, network, data) for data in range(options.datasets) for kind in ("descent", "flow"))
        yield Unit("special", network, 0)
        yield Unit("staircase", network, 0)
        for data in range(options.datasets):
            yield from (Unit("lingering", network, data, spread) for spread in range(len(options.lingering_spreads)))


def phase_of(options: Overfitting, unit: Unit) -> str:
    """The phase that a part of the work belongs to."""
    names = {"special": "starts in null sets", "staircase": "staircase", "lingering": "time near saddles"}
    return f"{options.hidden_layers[unit.network]} hidden: {names.get(unit.kind, RANDOM)}"


def step_size(options: Overfitting, target: Target, network: int) -> float:
    r"""The share of $\eta_C = 2 / \min_M \lambda_{max}$ that descent takes."""
    depth = options.hidden_layers[network] + 1
    return options.step_share * 2 / linear.flattest_sharpness(float(target.singular_values[0]), depth)


def starts(options, unit, num, spread, dtype):
    """Random starts of a unit: other ones for each network, target, kind and spread."""
    name = (unit.network, unit.data, KINDS.index(unit.kind), unit.spread)
    return endings.random_starts(options.seed, name, num, network_widths(options)[unit.network], spread, dtype)


def families(options, target, network, dtype):
    """The target in the coordinates of its singular vectors, and the special sets of starts."""
    widths = network_widths(options)[network]
    found = endings.special_families(options.seed, (98, network), options.special_starts, widths, options.spread, dtype)
    return endings.diagonal_target(target, widths, dtype), list(found)


def stair_spread(options: Overfitting, network: int) -> float:
    """How small the orbits of the staircase start: the smaller, the fewer layers, since fewer layers wait less."""
    return min(options.lingering_spreads) ** (2 / options.hidden_layers[network])
