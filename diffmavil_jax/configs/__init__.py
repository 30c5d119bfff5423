"""The presets. In a checkout they are in `configs/` at its top; in a wheel they are here."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from configs import common as common
    from configs import diffmavil as diffmavil
    from configs import diffmavil_cross as diffmavil_cross
    from configs import finetune as finetune

__path__ = [str(pathlib.Path(__file__).parents[2] / 'configs')]
