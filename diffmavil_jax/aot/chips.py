"""The accelerators that a run can be compiled for, with their published figures."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip or GPU.

    Attributes:
        kind: its name in a topology.
        hbm_bytes: size of the main memory.
        flops: operations per second in `dtype`, of dense matrix products.
        hbm_bandwidth: bytes per second between the chip and its main memory.
        link_bandwidth: bytes per second that all links to other chips send together.
        config: TPU: the compiler's name for the chip with its cores as one device; empty for the default.
        dtype: the fastest that the package computes in on it.
        gpu: what the CUDA compiler asks of a GPU; None for a TPU.
    """

    kind: str
    hbm_bytes: int
    flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    config: str = ''
    dtype: str = 'bfloat16'
    gpu: Gpu | None = None

    @property
    def platform(self) -> str:
        """As JAX calls it."""
        return 'tpu' if self.gpu is None else 'gpu'


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What the CUDA compiler asks of a GPU, besides `Chip`.

    Attributes:
        name: as the driver spells it.
        capability: compute capability (major, minor).
        cores: streaming multiprocessors.
        fpus_per_core: float32 units of each.
        threads_per_core: that can be resident.
        shared_per_core: bytes of shared memory.
        shared_per_block: bytes of it that one block may take.
        l2_bytes: size of the second-level cache.
        clock_ghz: highest clock.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    fpus_per_core: int
    threads_per_core: int
    shared_per_core: int
    shared_per_block: int
    l2_bytes: int
    clock_ghz: float


def _by_kind(*chips: Chip) -> Mapping[str, Chip]:
    return types.MappingProxyType({chip.kind: chip for chip in chips})


# From Google Cloud's pages on TPU system architecture, one for each version. They state the bandwidth
# between chips in bits; here it is in bytes.
TPUS: Mapping[str, Chip] = _by_kind(
    Chip('v4', 32 * 2**30, 275e12, 1_228e9, 300e9, 'megacore'),
    Chip('v5e', 16 * 2**30, 197e12, 819e9, 200e9),
    Chip('v5p', 95 * 2**30, 459e12, 2_765e9, 600e9, 'megacore'),
    Chip('v6e', 32 * 2**30, 918e12, 1_640e9, 448e9),
)

_KIB = 1024
# From NVIDIA's data sheets and CUDA programming guide; memory as drivers report it. Products are dense. Links
# are NVLink in one direction where there is NVLink, else PCIe.
GPUS: Mapping[str, Chip] = _by_kind(
    Chip(
        't4', 15_835_660_288, 8.1e12, 320e9, 16e9, dtype='float32',
        gpu=Gpu('Tesla T4', (7, 5), 40, 64, 1024, 64 * _KIB, 64 * _KIB, 4 * _KIB**2, 1.59),
    ),
    Chip(
        'l4', 24_152_899_584, 121e12, 300e9, 32e9,
        gpu=Gpu('NVIDIA L4', (8, 9), 58, 128, 1536, 100 * _KIB, 99 * _KIB, 48 * _KIB**2, 2.04),
    ),
    Chip(
        'a100', 85_100_068_864, 312e12, 2_039e9, 300e9,
        gpu=Gpu('NVIDIA A100-SXM4-80GB', (8, 0), 108, 64, 2048, 164 * _KIB, 163 * _KIB, 40 * _KIB**2, 1.41),
    ),
    Chip(
        'h100', 84_978_434_048, 989e12, 3_352e9, 450e9,
        gpu=Gpu('NVIDIA H100 80GB HBM3', (9, 0), 132, 128, 2048, 228 * _KIB, 227 * _KIB, 50 * _KIB**2, 1.98),
    ),
    Chip(
        'h200', 150_754_820_096, 989e12, 4_800e9, 450e9,
        gpu=Gpu('NVIDIA H200', (9, 0), 132, 128, 2048, 228 * _KIB, 227 * _KIB, 50 * _KIB**2, 1.98),
    ),
    Chip(
        'b200', 191_514_411_008, 2_250e12, 7_672e9, 900e9,
        gpu=Gpu('NVIDIA B200', (10, 0), 148, 128, 2048, 228 * _KIB, 227 * _KIB, 132_644_864, 1.965),
    ),
)  # fmt: skip

CHIPS: Mapping[str, Chip] = types.MappingProxyType({**TPUS, **GPUS})
