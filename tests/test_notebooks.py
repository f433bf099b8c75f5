"""Every notebook runs from its first cell to its last, at small sizes, in a kernel of this very interpreter."""

import gc
import sys
import warnings
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
LARGEST = 400_000  # bytes on disk, outputs included


class ThisInterpreter(KernelSpecManager):
    """Whatever kernels are registered on the machine: a test runs the packages that it was installed with."""

    def get_kernel_spec(self, kernel_name):
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


def execute(notebook, folder):
    """Run all cells. zmq warns of sockets that nbclient leaves to the garbage collector: so collect them here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        kernel = AsyncKernelManager(kernel_spec_manager=ThisInterpreter(), kernel_name="python3")
        NotebookClient(notebook, km=kernel, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
        del kernel
        gc.collect()


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_threshold",
        "02_linear_networks",
        "03_basins",
        "04_past_the_threshold",
        "05_shallow_relu",
        "06_flow_versus_descent",
        "08_your_own_system",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("GDSTAB_SMALL", "1")
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):  # neither settings nor traces of a user
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    execute(notebook, tmp_path)
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_with_small_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < LARGEST
    assert all(cell.execution_count == number for number, cell in enumerate(code_cells(notebook), 1))
    assert not [o for cell in code_cells(notebook) for o in cell.outputs if o.output_type == "error"]
    assert 'jax.config.update("jax_enable_x64", True)' in code_cells(notebook)[0].source
