"""MAViL (Huang et al. 2022), stage 1: the baseline, the same code with every technique of DiffMAViL off.

python main.py --config=configs/mavil.py
python main.py --config=configs/mavil.py:folder --config.data.path=DIR
python main.py --config=configs/mavil.py:audioset --plan
"""

from __future__ import annotations

from ml_collections import ConfigDict

from diffmavil_jax.configs import common


def get_config(variant: str = 'demo') -> ConfigDict:
    """The config of a variant; `help` lists them."""
    return common.build('mavil', variant, techniques, __doc__ or '')


def techniques(config: ConfigDict) -> None:
    """Each line is one switch; configs/diffmavil.py has the other side of each."""
    config.diffusion.enabled = False
    config.loss.normalize_targets = True
    config.model.audio_decoder = 'self'
    config.model.video_decoder = 'self'
    config.masking.curriculum = 'none'
    config.batch.rule = 'fixed'
