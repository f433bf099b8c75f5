"""What options are made of: boxes, and ranges of numbers from one word."""

from typing import TypeAlias

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
