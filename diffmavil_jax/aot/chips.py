"""Accelerator chips, from their makers' published figures."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip.

    Attributes:
        kind: as a topology names it.
        hbm_bytes: of main memory.
        flops: a second, in bfloat16.
        hbm_bandwidth: bytes a second.
        link_bandwidth: bytes a second that all its links to other chips send together.
        config: how the compiler calls the chip with its cores as one device; empty: its default.
    """

    kind: str
    hbm_bytes: int
    flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    config: str = ''


# Google Cloud's pages on TPU system architecture, one for each version, have peak compute, HBM and
# its bandwidth, and the inter-chip bandwidth, here in bytes.
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
