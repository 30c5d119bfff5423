"""Flags of XLA's compiler."""

import os
import subprocess
import sys

import pytest

from diffmavil_jax.parallel.compiler import start_soon

FLAG = '--xla_gpu_enable_triton_gemm=false'


@pytest.mark.parametrize(
    ('dtype', 'before', 'after'),
    [
        ('float32', '', FLAG),
        ('float32', '--xla_a=1', f'--xla_a=1 {FLAG}'),
        ('float32', '--xla_gpu_enable_triton_gemm=true', '--xla_gpu_enable_triton_gemm=true'),
        ('bfloat16', '--xla_a=1', '--xla_a=1'),
    ],
)
def test_products_in_float32_are_not_tuned(dtype, before, after, monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', before)
    start_soon(dtype)
    assert os.environ['XLA_FLAGS'] == after


def test_xla_knows_the_flag():
    """It aborts the process for one that it does not know."""
    program = 'import jax; print(jax.numpy.ones(3).sum())'
    environment = os.environ | {'XLA_FLAGS': FLAG}
    done = subprocess.run(
        [sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == '3.0', done.stderr
