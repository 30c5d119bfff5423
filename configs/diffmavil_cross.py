"""DiffMAViL with cross-attention in both decoders: the reading of the paper that comes nearest to its 32 %.

python main.py --config=configs/diffmavil_cross.py:audioset --plan
"""

from __future__ import annotations

from ml_collections import ConfigDict

from diffmavil_jax.configs import common, diffmavil


def get_config(variant: str = 'demo') -> ConfigDict:
    """The config of a variant; `help` lists them."""
    return common.build('diffmavil_cross', variant, techniques, __doc__ or '')


def techniques(config: ConfigDict) -> None:
    """Those of configs/diffmavil.py, with cross-attention for audio too."""
    diffmavil.techniques(config)
    config.model.audio_decoder = 'cross'
