"""What a study is about, in words: the loss and the rule, for the console and the titles of pictures."""

import dataclasses

_FEW = 4  # numbers of a loss that are all named; of more, only those that are not the default
_NUMBERS = {
    "heavy-ball": ("beta",),
    "nesterov": ("beta",),
    "rmsprop": ("beta2",),
    "adam": ("beta", "beta2"),
    "adamw": ("beta", "beta2"),
    "lion": ("beta", "beta2"),
}


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
