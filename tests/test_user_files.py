"""Files of the user's own: modules with their folder on the path, whatever their names are."""

import pickle
import sys

import pytest

from gdstab.studies import building, options, user_files

pytestmark = pytest.mark.usefixtures("process_as_it_was")


@pytest.fixture(autouse=True)
def path_as_it_was(monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())


@pytest.fixture
def write(tmp_path):
    def into(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return f"{name}:fn"

    return into


def test_postponed_annotations_and_a_dataclass(write):
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text = f"{head}@dataclass\nclass C:\n    a: float = 2.0\ndef fn(theta):\n    return C().a\n"
    fn = user_files.load_function(write("my.py", text))
    assert fn(0) == 2.0
    assert pickle.loads(pickle.dumps(fn)) is fn
    kind = sys.modules[fn.__module__].C
    assert isinstance(pickle.loads(pickle.dumps(kind())), kind)


@pytest.mark.parametrize("how", ["import helper", "from . import helper", "from .helper import one; import helper"])
def test_what_lies_beside_a_file_is_its_own(how, write):
    """Two folders with files of the same names, read one after the other, and then once more."""
    paths = []
    for folder, value in (("a", 1), ("b", 2)):
        write(f"{folder}/helper.py", f"one = {value}\n")
        paths.append(write(f"{folder}/my.py", f"{how}\ndef fn(theta):\n    return helper.one\n"))
    functions = [user_files.load_function(path) for path in paths]
    assert [fn(0) for fn in functions] == [1, 2]
    assert [user_files.load_function(path)(0) for path in paths] == [1, 2]
    assert functions[0].__module__ != functions[1].__module__


@pytest.mark.parametrize("changed", ["my.py", "helper.py"])
def test_a_change_is_seen_and_known_by_another_checksum(changed, write):
    texts = {"helper.py": "one = 1\n", "my.py": "import helper\ndef fn(theta):\n    return helper.one + 1\n"}
    for name, text in texts.items():
        write(name, text)
    fn, before = user_files.load_function("my.py:fn"), user_files.digest("my.py:fn")
    assert user_files.load_function("my.py:fn") is fn
    write(changed, texts[changed].replace("1", "2", 1))
    assert user_files.load_function("my.py:fn")(0) == 3
    assert user_files.digest("my.py:fn") != before


def test_a_file_in_a_package_and_a_package(write):
    write("pack/__init__.py", "top = 5\ndef fn(theta):\n    return 6\n")
    write("pack/side.py", "three = 3\n")
    write("pack/sub/__init__.py", "")
    text = "from .. import top\nfrom ..side import three\nfrom pack.side import three as also\n"
    path = write("pack/sub/my-file.v2.py", text + "def fn(theta):\n    return top, three, also\n")
    assert user_files.load_function(path)(0) == (5, 3, 3)
    assert user_files.load_function("pack:fn")(0) == 6


def test_a_file_named_as_a_module_of_pythons_is_no_other_and_nothing_is_left_beside_it(write, tmp_path):
    write("helper.py", "")
    known = sys.modules["pickle"]
    user_files.load_function(write("pickle.py", "import helper\ndef fn(theta):\n    return 1\n"))
    assert sys.modules["pickle"] is known
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper.py", "pickle.py"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = = 3\n", "my.py, line 1: SyntaxError"), ("import helper\n", "helper.py, line 2: SyntaxError"),
        ("\n1 / 0\n", "my.py, line 2: ZeroDivisionError"), ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("raise ValueError('one\\ntwo')\n", "ValueError: one;"), ("from .. import x\n", "line 1: ImportError"),
        ("from math import sin\ndef other(theta): ...\n", "it has other"), ("fn = 3\n", "it has none"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_in_one_line_with_its_place(text, said, write):
    write("helper.py", "\ndef f(:\n")
    path = write("my.py", text)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        user_files.load_function(path)
    assert said in str(refused.value)


@pytest.mark.parametrize("path", ["my.py", "my.py:", ":fn", "my:fn", "my.py:a b", "gone.py:fn", ""])
def test_what_is_no_path_of_a_function(path, write):
    write("my.py", "")
    with pytest.raises(ValueError, match=r"^--loss.path [^\n]+$"):
        user_files.load_function(path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return theta[0] + theta[7]", "another number of parameters than --loss.dim 2 gives: my.py, line 4"),
        ("return theta[0, 1]", "set --loss.dim"), ("return theta['W']", "does not take a vector of 2 parameters"),
        ("return jnp.ones(3) @ theta", "my.py, line 4"), ("return helper.bad(theta)", "helper.py, line 2: KeyError"),
    ],
)  # fmt: skip
def test_an_exception_in_a_loss_is_told_with_its_line(body, said, write):
    write("helper.py", "def bad(theta):\n    return {}[1]\n")
    path = write("my.py", f"import jax.numpy as jnp\nimport helper\ndef fn(theta):\n    {body}\n")
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        building.build_loss(options.Custom(path))
    assert said in str(refused.value)
