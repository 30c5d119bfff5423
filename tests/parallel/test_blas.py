"""Threads of NumPy's matrix products."""

import os
import subprocess
import sys

import pytest

from diffmavil_jax.parallel.blas import leave_cores_to_others

THREADS = 'OPENBLAS_NUM_THREADS'


@pytest.mark.parametrize(('cores', 'threads'), [(None, '1'), (1, '1'), (2, '1'), (9, '4')])
def test_half_of_the_cores(cores, threads, monkeypatch):
    monkeypatch.setenv(THREADS, '')  # so that it is put back after the test
    monkeypatch.delenv(THREADS)
    monkeypatch.setattr(os, 'cpu_count', lambda: cores)
    leave_cores_to_others()
    assert os.environ[THREADS] == threads


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv(THREADS, '3')
    leave_cores_to_others()
    assert os.environ[THREADS] == '3'


def test_training_has_not_imported_numpy_before():
    """OpenBLAS reads the variable when NumPy is imported."""
    program = 'import sys; from diffmavil_jax.commands import run; print("numpy" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == 'False', done.stderr
