"""Parts of a data set, with all classes alike, and pixels of mean zero."""

import dataclasses

import numpy as np

from gdstab._validate import check_count, check_positive
from gdstab.data.images import Dataset


def pixel_statistics(data: Dataset) -> tuple[float, float]:
    """Mean and standard deviation over all pixels of all images together.

    ValueError if all pixels are equal.
    """
    pixels = data.inputs.astype(np.float64)
    mean, deviation = float(pixels.mean()), float(pixels.std())
    if not deviation > 0:
        raise ValueError(f"{data.name}: expected pixels that differ, got {mean} everywhere; check the images")
    return mean, deviation


def normalised(data: Dataset, statistics: tuple[float, float] | None = None) -> Dataset:
    """Shift and scale all pixels alike to mean 0 and standard deviation 1 (paper D, Appendix H.2).

    The paper normalises the whole training set (for MNIST by 0.1307 and 0.3081) and takes its subset afterwards. Pass
    the `pixel_statistics` of the training part for test images.
    """
    mean, deviation = pixel_statistics(data) if statistics is None else statistics
    deviation = check_positive(deviation, "statistics: the standard deviation")
    inputs = (data.inputs.astype(np.float64) - mean) / deviation
    return dataclasses.replace(data, inputs=inputs.astype(data.inputs.dtype))


def subset(data: Dataset, num: int, seed: int = 0, *, balanced: bool = True) -> Dataset:
    """`num` samples chosen at random, in the order of the data.

    With `balanced` the classes have equal numbers of samples, or numbers that differ by one; which get one more is
    random too. Otherwise all samples are equally likely, as in paper D. Of one seed, smaller choices are contained in
    larger ones.

    Raises
    ------
    ValueError
        If there are fewer samples, or fewer of some class, than asked for.

    Examples
    --------
    >>> from gdstab.data import digits
    >>> np.bincount(subset(digits(), 100).labels).tolist()
    [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    """
    return data.take(np.sort(_choose(data, num, seed, balanced)))


def split(data: Dataset, num: int, seed: int = 0, *, balanced: bool = True) -> tuple[Dataset, Dataset]:
    """The samples that `subset` chooses, and the rest: to train on, and to test."""
    chosen = _choose(data, num, seed, balanced)
    if num == len(data):
        raise ValueError(f"num: expected fewer than {num}, all samples of {data.name}, so that some are left")
    return data.take(np.sort(chosen)), data.take(np.setdiff1d(np.arange(len(data)), chosen))


def _choose(data, num, seed, balanced):
    num, size = check_count(num, "num"), len(data)
    if num > size:
        raise ValueError(f"num: expected at most {size}, the samples of {data.name}, got {num}; ask for fewer")
    generator = np.random.default_rng(check_count(seed, "seed", least=0))
    order, turns = generator.permutation(size), generator.permutation(data.classes)
    return (_take_turns(data, order, turns, num) if balanced else order)[:num]


def _take_turns(data, order, turns, num):
    """The samples in an order in which the classes take turns."""
    each = [order[data.labels[order] == label] for label in turns]
    rounds = -(-num // data.classes)
    for place, (label, members) in enumerate(zip(turns, each, strict=True)):
        needed = rounds - (place >= num - (rounds - 1) * data.classes)
        if len(members) < needed:
            raise ValueError(
                f"num: expected a number for which every class of {data.name} has enough samples, got {num}, which "
                f"takes {needed} of class {label}, that has {len(members)}; ask for fewer, or pass balanced=False"
            )
    return np.array([members[turn] for turn in range(rounds) for members in each if turn < len(members)])
