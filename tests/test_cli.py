"""The command line: fast help, the syntax, exit codes, one clear message for every mistake."""

import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gdstab import records
from gdstab.cli import commands, last_words, main, process, report
from gdstab.studies import options, reproduce
from gdstab.studies.escape import study as escape
from gdstab.studies.options.reproduce import FIGURES
from gdstab.studies.overfitting import study as overfitting
from gdstab.studies.phases import SAVING, Phase, enter

ROOT = Path(__file__).parents[1]
SMALL = ["--resolution", "20", "20", "--max-steps", "2000"]

pytestmark = pytest.mark.usefixtures("process_as_it_was")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_imports_neither_jax_nor_the_parser(arguments):
    code = f"""import sys; from gdstab.__main__ import main; code = main({arguments!r})
print(code, sorted({{"jax", "numpy", "tyro", "matplotlib"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert all(name in done.stdout for name in commands())


def test_options_and_refusals_import_neither_jax_nor_numpy():
    code = """import sys; from gdstab.cli import main; main(["heatmap", "--step-size", "-1"])
import gdstab.studies.options
print(sorted({"jax", "numpy", "tyro"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_line_of_the_issue_is_the_default():
    line = (
        "--step-size 0.3 --box -4 4 -4 4 --resolution 1000 1000 --max-steps 100000 --loss-tol 1e-12 --grad-tol 1e-10 "
        "--escape-radius 1e6 --precision 64 --max-period 8 --out runs/heatmap loss:scalar --loss.scale 1.0"
    )
    assert process.parse(options.Heatmap, line.split(), "heatmap") == options.Heatmap()
    assert process.parse(options.Heatmap, [], "heatmap") == options.Heatmap()


def test_negative_numbers_flags_and_none():
    words = "--box -1e-3 -.5e-3 -2 -1 --no-ellipse --grad-tol None --plane 0 0 -1 0 0 1 loss:custom --loss.path a.py:f"
    asked = process.parse(options.Heatmap, words.split(), "heatmap")
    assert asked.box == ((-0.001, -0.0005), (-2.0, -1.0))
    assert (asked.ellipse, asked.grad_tol, asked.plane) == (False, None, (0, 0, -1, 0, 0, 1))
    assert asked.loss == options.Custom("a.py:f", 2)


@pytest.mark.usefixtures("unrendered")
def test_heatmap_then_again(tmp_path, capsys):
    words = ["heatmap", *SMALL, "--out", "run"]
    assert main(words) == 0
    first = capsys.readouterr()
    assert "converged to: 114 minimum, 8 strict saddle" in first.out
    assert "400 lanes" in first.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["cells"] == 400
    assert summary["configuration"]["loss"] == {"name": "scalar", "depth": 2, "target": 1.0, "scale": 1.0}
    assert main(words) == 0
    second = capsys.readouterr()
    assert "complete already" in second.out
    assert second.out.splitlines()[:10] == first.out.splitlines()[:10]
    assert main([*words, "--step-size", "0.2"]) == 2
    assert "differs in step_size" in capsys.readouterr().err
    assert main([*words, "--step-size", "0.2", "--overwrite"]) == 0


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    cache = tmp_path / "cache"
    found = []
    for out in ("a", "b"):
        words = [sys.executable, "-m", "gdstab", "heatmap", *SMALL, "--out", str(tmp_path / out)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
        found.append(sorted(path.name for path in cache.rglob("*-cache")))
    assert found[0] == found[1] != []


@pytest.mark.slow
def test_precision_32(tmp_path):
    assert main(["heatmap", *SMALL, "--precision", "32", "--out", "run"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["provenance"]["dtype"] == "float32"


def test_orbit_prints_its_steps(capsys):
    line = "orbit --step-sizes 0.2 --boxes -1 3 -1 3 --start 2 1 --num-steps 2 --out run"
    words = line.split()
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "loss:scalar (depth 2, target 1, scale 1), gradient descent"
    assert [line.split() for line in lines[2:6]] == [
        ["step", "x0", "x1"],
        ["0", "2", "1"],
        ["1", "1.6", "0.2"],
        ["2", "1.6544", "0.6352"],
    ]
    assert "converged" in lines[-3]
    assert main(words) == 0


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("jax", "device_kind", "cores", "float64", "highest", "compilation_cache"):
        assert word in out


@pytest.mark.usefixtures("unrendered")
def test_a_users_own_loss(tmp_path, capsys):
    (tmp_path / "my.py").write_text("def fn(theta):\n    return (1 - theta[0] * theta[1]) ** 2\n")
    words = ["heatmap", *SMALL, "--out", "run", "loss:custom", "--loss.path", "my.py:fn", "--loss.dim", "2"]
    assert main(words) == 0
    assert "114 minimum, 8 strict saddle" in capsys.readouterr().out
    (tmp_path / "my.py").write_text("def fn(theta):\n    return (2 - theta[0] * theta[1]) ** 2\n")
    assert main(words) == 2
    assert "differs in loss.sha256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("", "gone.py:fn", "not there"),
        ("", "my.py", "FILE.py:FUNCTION"),
        ("x = 1\ndef fn(theta:\n", "my.py:fn", "my.py, line 2: SyntaxError"),
        (
            "def fn(theta):\n    return theta['W']\n",
            "my.py:fn",
            "my.py, line 2: TypeError: JAX does not",
        ),
        ("def fun(theta): return theta @ theta", "my.py:fn", "Did you mean fun?"),
        ("def other(theta): ...", "my.py:fn", "no function 'fn'; it has other"),
        ("import nothing_of_that_name", "my.py:fn", "cannot be imported"),
        ("def fn(theta): return theta", "my.py:fn", "scalar"),
        ("def fn(theta): return 3", "my.py:fn", "number"),
        ("def fn(theta): return theta[0].astype(int)", "my.py:fn", "floating"),
        ("def fn(theta): return theta.nothing", "my.py:fn", "AttributeError"),
    ],
)
def test_a_bad_loss_of_the_users_own(text, path, message, tmp_path, capsys):
    (tmp_path / "my.py").write_text(text)
    assert main(["heatmap", *SMALL, "--out", "run", "loss:custom", "--loss.path", path]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--step-size -1", "positive"),
        ("--step-size nan", "positive"),
        ("--box 4 -4 -4 4", "low < high"),
        ("--resolution 0 10", "at least 1"),
        ("--resolution 2000000000 2000000000", "--resolution asks for arrays of 6.4e+07 TB"),
        ("--plane 0 7", "there are 2"),
        ("--plane 0 1 0", "--plane"),
        ("--max-steps -1", "--max-steps takes an integer from 0"),
        ("--max-period 1", "--max-period takes an integer of at least 2"),
        ("--escape-radius 1e200", "--escape-radius"),
        ("--precision 32 --loss-tol none", "--grad-tol 1e-10 cannot be met in 32 bits"),
        ("--box nan 1 -4 4", "--box takes a finite number, but got nan"),
        ("--out file/run", "cannot"),
        ("--out .", "holds files, but no run"),
    ],
)
def test_bad_input_ends_with_one_message(words, message, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    extra = [] if "--out" in words else ["--out", "run"]
    assert main(["heatmap", *words.split(), *extra]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("gdstab heatmap: ")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_unknown_commands(capsys):
    assert main(["heatmpa"]) == 2
    assert "Did you mean heatmap?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "escape --manifold-cells 1", "multipliers --point 0 0", "lyapunov --box 0 1 0 1 0 1", "overfitting --nudge 0",
        "escape --manifold foo bar", "orbit --num-steps 1e12", "lyapunov --starts 1e10", "multipliers --num-steps 1e12",
        "bifurcation --kept 1e12", "multipliers --precision 32", "lyapunov --precision 32", "escape --precision 32",
        "heatmap --precision 32 loss:linear --loss.widths 2 1 2", "cycle --starts 1e12", "flow --starts 1e12",
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_a_line_and_leaves_nothing(words, tmp_path, capsys):
    assert main([*words.split(), "--out", "new/run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gdstab {words.split()[0]}: ")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_directory_of_another_study_is_named(tmp_path, capsys):
    records.begin("run", options.configuration(options.CriticalMap()))
    assert main(["heatmap", *SMALL, "--out", "run"]) == 2
    assert "holds a run of `gdstab critical-map`" in capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").exists()


def test_a_command_that_fails_late_takes_its_directory_along(tmp_path, monkeypatch, capsys):
    """And says how much memory was asked for, by which option."""

    def fail(*_, **__):
        raise MemoryError("Unable to allocate 14.9 TiB for an array with shape (2, 3)")

    monkeypatch.setattr("gdstab.basins.heatmap", fail)
    assert main(["heatmap", "--max-steps", "200000", "--resolution", "20", "20", "--out", "some/run"]) == 2
    said = capsys.readouterr().err
    assert said == "gdstab heatmap: out of memory: it asked for 16.4 TB at once; lower --max-steps\n"
    assert not (tmp_path / "some").exists()


@pytest.mark.usefixtures("unrendered")
def test_the_loss_of_the_readme_in_five_lines(tmp_path, capsys):
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Your own loss") : text.index("## Losses")]
    code, command = re.findall(r"```(?:python|bash)\n(.+?)```", section, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    (tmp_path / "my.py").write_text(code)
    words = command.split()[1:]
    assert main([*words, "--resolution", "20", "20", "--max-steps", "200"]) == 0
    assert "converged to" in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.open_zarr(tmp_path / words[words.index("--out") + 1] / "result.zarr")


def test_bash_completes_commands_options_losses_and_choices(capsys):
    assert main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    lines = {
        "gdstab critical-": "critical-map", "gdstab heatmap --st": "--step-size", "gdstab heatmap loss:vec": "vector",
        "gdstab cycle --rule adamw": "adamw", "gdstab reproduce D.": "D.1 D.2 D.3",
        "gdstab flow --loss.dep": "--loss.depth",
    }  # fmt: skip
    for line, offered in lines.items():
        code = f"""{script}
COMP_LINE='{line}'; COMP_POINT={len(line)}; COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}
_gdstab; echo "${{COMPREPLY[*]}}" """
        assert (
            subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.strip() == offered
        )
    assert main(["--print-completion", "zsh"]) == 0
    assert "compdef _gdstab gdstab" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.slow  # a process that imports and compiles
def test_an_interrupted_process_ends_at_once(tmp_path):
    """Whatever computes, in this thread or in others: the signal is sent when the run has begun."""
    words = ["heatmap", "--resolution", "3000", "3000", "--step-size", "0.4999", "--out", str(tmp_path / "run")]
    done = subprocess.Popen([sys.executable, "-m", "gdstab", *words], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "run.json").is_file():
        time.sleep(0.05)
    time.sleep(1)
    done.send_signal(signal.SIGINT)
    _, said = done.communicate(timeout=30)
    assert done.returncode == 130
    assert re.fullmatch(r"\ngdstab heatmap: stopped; (nothing|\d+ finished part).* kept.*; with --resume it .*\n", said)


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_nobody_who_reads_is_no_fault(words):
    """As other tools a command dies of the signal, without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "gdstab", *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_an_interrupt_while_modules_are_imported_says_one_line_at_the_most():
    """The signal is sent by the first module that a command imports, and meets whatever comes then."""
    code = """import os, signal, sys, threading
import gdstab.__main__ as entry
def stop(*_):
    os.kill(os.getpid(), signal.SIGINT)
    import tyro, jax
entry.main = stop
sys.exit(entry.run())"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "\ngdstab: stopped; nothing was begun\n")


def test_last_words_tell_what_is_kept(tmp_path):
    record = records.begin(tmp_path / "run", {})
    assert last_words(["flow"]).endswith(f"nothing is kept yet in {tmp_path}/run; with --resume it begins again")
    record.commit(0, x=np.zeros(1))
    assert f"1 finished part is kept in {tmp_path}/run; with --resume it goes on from there" in last_words(["flow"])
    record.finish({})
    assert last_words(["flow"]) == "gdstab flow: stopped; nothing was begun"


class Terminal(io.StringIO):
    """A terminal that keeps what it was shown."""

    def isatty(self):
        return True


def test_a_bar_over_all_phases():
    """It names them, moves with their lanes, and is full only behind the last; its clock goes on without lanes."""
    seen, shares = Terminal(), []
    with report.Progress({"orbits": Phase(2, 100), "branches": Phase(1), "saving": Phase(1)}, seen) as progress:
        enter(progress, "orbits")
        for lanes in (50, 50, 10):  # more than were expected
            progress(lanes, 1000)
            shares.append(progress.share())
        enter(progress, "branches")
        before = seen.getvalue().count("branches (2 of 3)")
        time.sleep(0.6)
        assert seen.getvalue().count("branches (2 of 3)") > before
        enter(progress, "saving")
        shares.append(progress.share())
        progress.phase("what nobody announced")
        shares.append(progress.share())
    assert shares == [0.25, 0.5, 0.5, 0.75, 0.75]
    assert "110 lanes, 3000 lane-steps" in seen.getvalue()
    assert "saving (3 of 3):  75%" in seen.getvalue()


def test_every_study_announces_its_phases():
    """Without building a loss, and whatever the numbers are: they are checked later."""
    for name, kind in options.STUDIES.items():
        phases = importlib.import_module(f"gdstab.studies.{name.replace('-', '_')}.study").phases(kind())
        assert list(phases)[-1] == SAVING
        assert len(phases) > 1
    for change in ({"chunk": 0}, {"samples": 0}, {"samples": -1}):
        assert escape.phases(options.Escape(**change))
    assert overfitting.phases(options.Overfitting(datasets=0, hidden_layers=()))
    for name in FIGURES:
        assert list(reproduce.phases(name, FIGURES[name]()))[-1] == SAVING


def test_the_commands_of_the_readme_are_understood(monkeypatch):
    """Every command line is parsed as written; none is run."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^\.venv/bin/gdstab (.+)$", text, re.MULTILINE)
    assert len(lines) >= 5
    parsed = []

    def parse(options, arguments, name):
        parsed.append(known(options, arguments, name))
        raise KeyboardInterrupt

    known = process.parse
    monkeypatch.setattr(process, "parse", parse)
    assert [main(line.split()) for line in lines if not line.startswith("reproduce")] == [130] * len(parsed)
    assert len(parsed) >= 4


@pytest.mark.parametrize(
    ("body", "words"), [("theta[0] * theta[1] * theta[2]", "set --loss.dim"), ("theta[0]**4 - theta[0]**2", "-1e300")]
)
def test_a_loss_of_yours_with_another_dimension_or_floor(body, words, tmp_path, capsys):
    (tmp_path / "my.py").write_text(f"def fn(theta):\n    return {body}\n")
    path = f"{tmp_path / 'my.py'}:fn"
    assert main(["heatmap", *SMALL, "--out", str(tmp_path / "run"), "loss:custom", "--loss.path", path]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
