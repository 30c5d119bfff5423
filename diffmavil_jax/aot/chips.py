"""The TPU chips that a run can be compiled for, with their published figures."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip.

    Attributes:
        kind: the name of the chip in a topology.
        hbm_bytes: size of the main memory.
        flops: operations per second in bfloat16.
        hbm_bandwidth: bytes per second between the chip and its main memory.
        link_bandwidth: bytes per second that all links to other chips send together.
        config: the compiler's name for the chip with its cores as one device; empty for the default.
    """

    kind: str
    hbm_bytes: int
    flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    config: str = ''


# From Google Cloud's pages on TPU system architecture, one for each version. They state the bandwidth
# between chips in bits; here it is in bytes.
TPUS: Mapping[str, Chip] = types.MappingProxyType(
    {
        chip.kind: chip
        for chip in (
            Chip('v4', 32 * 2**30, 275e12, 1_228e9, 300e9, 'megacore'),
            Chip('v5e', 16 * 2**30, 197e12, 819e9, 200e9),
            Chip('v5p', 95 * 2**30, 459e12, 2_765e9, 600e9, 'megacore'),
            Chip('v6e', 32 * 2**30, 918e12, 1_640e9, 448e9),
        )
    }
)
