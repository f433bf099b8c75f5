"""The words of a command line: every order, every mistake in one line, every number in its range."""

import dataclasses
import inspect
import json
import re
import typing
import zlib
from pathlib import Path

import numpy as np
import pytest

import gdstab
from gdstab import losses
from gdstab.cli import words
from gdstab.losses.pullback import Pullback
from gdstab.studies import building, options
from gdstab.studies.options import reproduce

ALL = {**options.STUDIES, **reproduce.FIGURES}


@pytest.mark.parametrize("name", ALL)
def test_nothing_said_is_the_default_and_passes_the_checks(name):
    assert words.understand(ALL[name], []) == ALL[name]()
    options.check(ALL[name]())


@pytest.mark.parametrize(
    "line",
    [
        "--step-size 0.2 --max-steps 1000 loss:vector --loss.dim 3",
        "loss:vector --loss.dim 3 --max-steps 1e3 --step-size 0.2",
        "--loss.dim=3 --step_size=0.2 loss:vector --max-steps 1000.0",
    ],
)
def test_any_order_and_any_way_to_write_an_integer(line):
    asked = words.understand(options.Heatmap, line.split())
    assert asked == options.Heatmap(step_size=0.2, max_steps=1000, loss=options.Vector(dim=3))
    assert type(asked.max_steps) is int


def test_a_loss_that_is_meant_need_not_be_named():
    path = words.understand(options.Basin, ["--loss.path", "my.py:fn"]).loss
    assert path == options.Custom("my.py:fn")
    assert words.understand(options.Heatmap, ["--loss.depth", "3"]).loss == options.Scalar(depth=3)
    assert words.understand(options.Escape, ["loss:relu", "--loss.neurons", "3"]).loss == options.Relu(neurons=3)
    assert words.understand(options.Flow, ["--loss.seed", "1"]).loss == options.Linear(widths=(3, 3, 3), seed=1)
    with pytest.raises(ValueError, match="may belong to loss:quadnet, loss:relu"):
        words.understand(options.Heatmap, ["--loss.neurons", "3"])


def test_the_table_of_losses_names_each_in_python_and_on_the_command_line():
    """README has both names; what is built from the options is that class, with the same defaults but for three."""
    readme = (Path(gdstab.__file__).parent.parent / "README.md").read_text()
    rows = [
        line.split("|")[1:3]
        for line in readme.splitlines()
        if line.startswith("|") and re.search("`loss:(?!custom)", line)
    ]
    cells = [[re.findall(r"`((?:loss:)?\w+)", cell) for cell in row] for row in rows]
    pairs = [pair for python, words in cells for pair in zip(python, words, strict=False)]
    but = {("loss:scalar", "scale"), ("loss:recovery", "rank"), ("loss:quadnet", "neurons")}  # as README says
    named = {f"loss:{part.__name__.lower()}": part for part in typing.get_args(options.Loss)}
    assert {word for _, word in pairs} | {"loss:custom"} == named.keys()
    assert "`loss:custom`" in readme
    for python, word in pairs:
        kind = getattr(losses, python)
        built, _ = building.build_loss(named[word]())
        assert isinstance(built.loss if isinstance(built, Pullback) else built, kind), word
        defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
        for field in dataclasses.fields(named[word]):
            known = defaults.get(field.name, inspect.Parameter.empty)
            if known is not inspect.Parameter.empty and (word, field.name) not in but:
                assert field.default == known, (word, field.name)


CHECKSUMS = {
    "A.1a": 970471657, "A.1b": 2083820382, "A.2": 3848202183, "D.1": 2438339965,
    "D.2": 1804328447, "D.3": 2269925592, "basin": 2743239968, "bifurcation": 1560040101,
    "boundary": 1038258664, "critical": 1344059637, "critical-map": 3334378681, "cycle": 1047137958,
    "escape": 2960733047, "flow": 440994163, "heatmap": 1731740091, "lyapunov": 1361649221,
    "multipliers": 1481724119, "orbit": 3099879228, "overfitting": 3813787660, "spectrum": 1695815426,
}  # fmt: skip
"""Of the configurations by default, as runs have them on disk since the first layout of the package."""


@pytest.mark.parametrize("name", ALL)
def test_a_configuration_keeps_its_meaning_and_is_read_back(name):
    """Equal to what earlier versions wrote, so that their runs are read; and the options come back from it."""
    found = options.configuration(ALL[name]())
    assert zlib.crc32(json.dumps(found, sort_keys=True).encode()) == CHECKSUMS[name]
    assert options.read(json.loads(json.dumps(found))) == ALL[name]()


def test_a_configuration_of_another_version_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="no study 'tea'; it was written by another one"):
        options.read({"study": "tea"})
    with pytest.raises(ValueError, match="heatmap has no option sugar in this version"):
        options.read(options.configuration(options.Heatmap()) | {"sugar": 1})
    odd = options.Basin(
        step_sizes="0.1,0.2", loss_tol=None, escape_radius=float("inf"), loss=options.Quadratic((1.0, 3.0))
    )
    assert options.read(json.loads(json.dumps(options.configuration(odd)))) == odd


def test_one_scale_for_all_commands():
    for name, kind in options.STUDIES.items():
        if "loss:scalar" in words.losses_of(kind):
            assert words.understand(kind, ["loss:scalar"]).loss.scale == 1.0, name


@pytest.mark.parametrize(
    ("study", "line", "said"),
    [
        ("heatmap", "--stepsize 3", "there is no option --stepsize. Did you mean --step-size?"),
        ("heatmap", "--step-sizes 0.05 0.1", "Did you mean --step-size?"),
        ("basin", "--step-sizes 0.05 0.1", "takes one value, but got 2: 0.05 0.1; write --step-sizes 0.05,0.1"),
        ("heatmap", "loss:skalar", "there is no loss:skalar. Did you mean loss:scalar?"),
        ("heatmap", "scalar", "Did you mean loss:scalar?"),
        ("multipliers", "--rule adamm", "but got 'adamm'. Did you mean adam?"),
        ("heatmap", "--depth 3", "Did you mean --loss.depth?"),
        ("heatmap", "loss:vector --loss.depth 3", "loss:vector has no option --loss.depth. Did you mean --loss.dim?"),
        ("heatmap", "--no-elipse", "Did you mean --no-ellipse?"),
        ("heatmap", "--ellipse yes", "--ellipse takes no value"),
        ("heatmap", "--step-size abc", "--step-size takes a number, but got 'abc'"),
        ("heatmap", "--max-period 2.5", "--max-period takes an integer or None, but got '2.5'"),
        ("heatmap", "--box 1 2 3", "--box takes 4 values, but got 3: 1 2 3"),
        ("heatmap", "--step-size", "--step-size takes one value, but got none"),
        ("orbit", "--step-sizes 0.1,0.2", "takes numbers with spaces between"),
        ("heatmap", "loss:custom", "loss:custom needs --loss.path"),
        ("heatmap", "loss:scalar loss:vector", "expected one loss"),
        ("overfitting", "loss:scalar", "takes no loss"),
        ("heatmap", "3", "belongs to no option"),
    ],
)
def test_mistakes_are_said_in_one_line(study, line, said):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        words.understand(ALL[study], line.split())
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("study", "change", "option"),
    [
        ("heatmap", {"step_size": -1.0}, "--step-size"), ("heatmap", {"step_size": float("nan")}, "--step-size"),
        ("orbit", {"start": (1.0, float("inf"))}, "--start"), ("orbit", {"step_sizes": ()}, "--step-sizes"),
        ("basin", {"step_sizes": "0.1:nan:3"}, "--step-sizes"), ("basin", {"step_sizes": "0:1:99999999999"}, "at most"),
        ("basin", {"box": (1.0,)}, "--box"), ("lyapunov", {"box": (1.0, 1.0)}, "--box"),
        ("overfitting", {"nudge": 0.0}, "--nudge"), ("escape", {"band": 0.5}, "--band"),
        ("multipliers", {"point": (float("nan"), 0.0)}, "--point"), ("multipliers", {"beta": 1.0}, "--beta"),
        ("cycle", {"max_steps": 2**40}, "--max-steps"), ("flow", {"seed": -1}, "--seed"),
        ("heatmap", {"resolution": (8.5, 8)}, "--resolution"), ("heatmap", {"max_steps": True}, "--max-steps"),
        ("heatmap", {"loss": options.Custom("a.py:f", floor=float("nan"))}, "--loss.floor"),
        ("heatmap", {"loss": options.Linear(widths=())}, "--loss.widths"), ("D.1", {"num_steps": 0}, "--num-steps"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_the_name_of_the_option(study, change, option):
    with pytest.raises(ValueError, match=option):
        options.check(altered(ALL[study](), **change))


def altered(asked, **change):
    """Values that the annotations do not allow, which are only enforced where the tests run."""
    for name, value in change.items():
        object.__setattr__(asked, name, value)
    return asked


def test_numbers_of_numpy_are_numbers():
    change = {"max_period": np.int64(8), "resolution": tuple(np.array([4, 4])), "step_size": np.float32(0.25)}
    asked = altered(options.Heatmap(), **change)
    options.check(asked)
    assert options.configuration(asked) == options.configuration(options.Heatmap(resolution=(4, 4), step_size=0.25))
