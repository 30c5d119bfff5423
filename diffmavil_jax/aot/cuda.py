"""CUDA programs without a GPU: the compiler's target, and what JAX would ask of a GPU.

XLA's CUDA compiler needs no GPU. It tunes nothing then: memory and kernels are those of a real one, times
are not measured.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from diffmavil_jax.aot.chips import Chip, Gpu


def target(chip: Chip, gpu: Gpu) -> str:
    """A GpuTargetConfigProto of OpenXLA, as text."""
    major, minor = gpu.capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_per_core}
  threads_per_core_limit: {gpu.threads_per_core}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {round(chip.hbm_bandwidth)}
  l2_cache_size: {gpu.l2_bytes}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {chip.hbm_bytes}
  shared_memory_per_block_optin: {gpu.shared_per_block}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
device_description_str: "{gpu.name}"
"""


def devices(chip: Chip, gpu: Gpu, hosts: int, gpus: int) -> list[Any]:
    """The devices of `hosts` machines with `gpus` each. Without its CUDA plugin JAX raises something."""
    os.environ.setdefault('JAX_SKIP_CUDA_CONSTRAINTS_CHECK', '1')  # else the plugin refuses to load
    from jax.experimental import topologies

    description = topologies.get_topology_desc(
        platform='cuda',
        topology_name='',
        target_config=target(chip, gpu),
        topology=f'1x{hosts}x{gpus}',
    )
    return list(description.devices)


@contextlib.contextmanager
def pretended(gpu: Gpu) -> Iterator[None]:
    """JAX's cuDNN attention asks the attached GPU for its compute capability; the target's is answered."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as cudnn
    except ImportError:  # JAX has moved it: then it asks, and says that there is no GPU
        yield
        return

    def parsed(capability: str) -> tuple[int, ...]:
        return tuple(map(int, capability.split('.')))

    before = cudnn.check_compute_capability, cudnn.is_cuda_compute_capability_equal
    cudnn.check_compute_capability = lambda capability: parsed(capability) <= gpu.capability
    cudnn.is_cuda_compute_capability_equal = lambda capability: parsed(capability) == gpu.capability
    try:
        yield
    finally:
        cudnn.check_compute_capability, cudnn.is_cuda_compute_capability_equal = before
