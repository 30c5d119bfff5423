"""What XLA's compiler is asked for."""

from __future__ import annotations

import os

_TRITON_PRODUCTS = '--xla_gpu_enable_triton_gemm'


def start_soon(dtype: str) -> None:
    """Makes programs in float32 compile quickly on a GPU. Call it before anything asks JAX for its devices.

    XLA writes matrix products as Triton kernels and tries dozens of each, which it has to compile: the
    demo's step has 137 products, and would train for less time than that takes. In float32, which small
    networks compute in, cuBLAS has the kernels. Nothing changes where XLA_FLAGS names the choice.
    """
    flags = os.environ.get('XLA_FLAGS', '')
    if dtype == 'float32' and _TRITON_PRODUCTS not in flags:
        os.environ['XLA_FLAGS'] = f'{flags} {_TRITON_PRODUCTS}=false'.strip()
