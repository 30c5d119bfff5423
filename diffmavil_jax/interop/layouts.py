"""All layouts by name."""

from __future__ import annotations

import types
from collections.abc import Mapping

from diffmavil_jax.interop import audiomae, cavmae, mae, mavil
from diffmavil_jax.interop.layout import Layout

LAYOUTS: Mapping[str, Layout] = types.MappingProxyType(
    {
        'mae': mae.LAYOUT,
        'audiomae': audiomae.LAYOUT,
        'cavmae': cavmae.LAYOUT,
        'mavil': mavil.LAYOUT,
    }
)
