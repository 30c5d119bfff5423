"""How the network is computed, apart from what it computes."""

from __future__ import annotations

import dataclasses
from typing import Literal

from diffmavil_jax.config.constraints import Whole

_ALL_LAYERS = 1_000  # a scan is never longer
CPU_UNROLL = 4  # layers; tests compile one


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the network is computed. Parameters and, but for rounding, results are the same."""

    dtype: Literal['float32', 'bfloat16'] = 'float32'  # of activations
    # `cudnn`: for NVIDIA GPUs, with bfloat16. `auto` uses it where a trial of it works, else `xla`.
    attention: Literal['auto', 'xla', 'cudnn'] = 'auto'
    # What the forward pass keeps for the backward pass: `none` recomputes nothing, `dots` keeps what matrix
    # products and attention give, `full` keeps only the inputs of blocks. `auto`: see `on`.
    remat: Literal['auto', 'none', 'dots', 'full'] = 'auto'
    # Layers in an iteration of the scan over layers; 0: see `on`. More compile longer and run faster.
    scan_unroll: Whole = 0

    def on(self, platform: str) -> ComputeConfig:
        """The same with `remat` and `scan_unroll` chosen for `cpu`, `gpu` or `tpu`, where they are automatic.

        GPU: at the paper's scale (MAViL, 64 clips, compiled for an H100) a step without recomputation keeps
        36 GB and with `dots` 12 GB; with all layers unrolled the stacks of a scan are neither written nor
        read, which takes its traffic from 265 to 180 GB. In float32 XLA tunes every matrix product of a
        program for minutes, so that one layer starts sooner. CPU: four layers run a seventh faster than one.
        """
        gpu = platform == 'gpu'
        remat = ('dots' if gpu else 'none') if self.remat == 'auto' else self.remat
        automatic = {'cpu': CPU_UNROLL, 'gpu': _ALL_LAYERS if self.dtype == 'bfloat16' else 1}
        unroll = self.scan_unroll or automatic.get(platform, 1)
        return dataclasses.replace(self, remat=remat, scan_unroll=unroll)
