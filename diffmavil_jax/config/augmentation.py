"""How clips are changed each time they are trained on."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from diffmavil_jax.config.constraints import NotNegative, Share, at_least, must

Area = Annotated[float, must('a share above 0, up to 1', lambda area: 0 < area <= 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes of training clips; held-out clips are never changed.

    Each follows from the seed and the clip's position in the order of training. All pictures of a clip are
    changed alike, and another start is that of sound and pictures.
    """

    random_start: bool = False  # of a clip within a longer one that is stored, or within its file
    # The smallest rectangle that is cut out of a picture and scaled to its size, as a share of the square of
    # its shorter side; 1: always the centre.
    crop_min_area: Area = 1.0
    # The longest such rectangle: its longer side over its shorter one.
    crop_max_aspect: Annotated[float, at_least(1)] = 4 / 3
    flip: Share = 0.0  # share of the clips whose left and right are exchanged
    roll: bool = False  # sound is shifted in time, and wraps around
    gain: bool = False  # sound is multiplied by 0.5 + Beta(10, 10), as in AudioMAE
    gain_db: NotNegative = 0.0  # sound becomes louder or softer by up to this

    @property
    def crops(self) -> bool:
        """Whether rectangles are cut out."""
        return self.crop_min_area < 1
