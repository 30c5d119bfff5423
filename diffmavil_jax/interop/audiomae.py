"""AudioMAE (Huang et al. 2022b): one encoder of sound.

Its positions were made for a grid of 8 x 64 and are added to tokens of 64 x 8 (time first): the
table is right only as it is stored.
"""

from __future__ import annotations

import dataclasses

from diffmavil_jax.interop import mae
from diffmavil_jax.interop.layout import Layout

LAYOUT = Layout(encoders={'audio': dataclasses.replace(mae.VIT, picture=False)})
