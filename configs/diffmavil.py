"""DiffMAViL (Nunez et al. 2023): diffused patches, cross-attention, a curriculum, adaptive batches.

python main.py --config=configs/diffmavil.py
python main.py --config=configs/diffmavil.py:folder --config.data.path=DIR
python main.py --config=configs/diffmavil.py:audioset --plan
"""

from __future__ import annotations

from ml_collections import ConfigDict

from diffmavil_jax.configs import common


def get_config(variant: str = 'demo') -> ConfigDict:
    """The config of a variant; `help` lists them."""
    return common.build('diffmavil', variant, techniques, __doc__ or '')


def techniques(config: ConfigDict) -> None:
    """Each line is one switch; configs/mavil.py has the other side of each."""
    config.diffusion.enabled = True
    config.loss.normalize_targets = False
    config.model.audio_decoder = 'self'
    config.model.video_decoder = 'cross'
    config.masking.curriculum = 'linear'
    config.batch.rule = 'visible_tokens'
