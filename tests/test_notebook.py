"""The notebook, executed from top to bottom with few clips."""

import os
import pathlib

import nbclient
import nbformat
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / 'notebooks' / 'diffmavil_demo.ipynb'


@pytest.fixture(scope='module')
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_outputs_are_cleared(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            assert not cell.outputs and cell.execution_count is None


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    # One device, unlike the tests of meshes; else the flags of conftest.py.
    flags = [flag for flag in os.environ['XLA_FLAGS'].split() if 'device_count' not in flag]
    monkeypatch.setenv('XLA_FLAGS', ' '.join(flags))
    monkeypatch.setenv('DIFFMAVIL_NOTEBOOK_CLIPS', '96')
    monkeypatch.setenv('DIFFMAVIL_NOTEBOOK_RUNS', str(tmp_path))
    monkeypatch.setenv('PYTHONPATH', str(NOTEBOOK.parents[1]))
    done = nbclient.NotebookClient(notebook, timeout=300).execute()
    cells = [cell for cell in done.cells if cell.cell_type == 'code']
    said = [''.join(output.get('text', '') for output in cell.outputs) for cell in cells]
    shown = [output['data'] for cell in cells for output in cell.outputs if 'data' in output]
    assert 'CPU: 1 x' in said[1]
    assert 'notebook_96/report/index.html' in said[2]
    # Reconstructions, and the pictures that sounds are searched by; two players for each, and three.
    assert sum('image/png' in data for data in shown) == 2 + 3
    assert sum('<audio' in data.get('text/html', '') for data in shown) == 2 * 2 + 3 * 3
    assert 'its own sound is at place' in said[5]
    assert 'pretrained' in said[6] and 'from scratch' in said[6]
    assert 'equal to the run: True' in said[7]
