"""Beyond the papers: fewer tokens seen and decoded, more learned from them; see experiments/README.md.

python main.py --config=configs/diffmavil_fast.py
python main.py --config=configs/diffmavil_fast.py:audioset --plan
"""

from __future__ import annotations

from ml_collections import ConfigDict

from diffmavil_jax.configs import common, diffmavil_cross

_VISIBLE = 0.55  # times as many tokens as DiffMAViL sees
_DECODED = 0.1


def get_config(variant: str = 'demo') -> ConfigDict:
    """The config of a variant; `help` lists them."""
    config = common.build('diffmavil_fast', variant, diffmavil_cross.techniques, __doc__ or '')
    config.model.decoded_fraction = _DECODED
    # Among few visible tokens it would be one in fifteen, and features do not use it.
    config.model.class_token = False
    config.loss.inter_both_views = True
    config.batch.rule = 'fixed'
    if config.model.size == 'demo':
        config.batch.size = min(config.batch.size, 24)  # a run of minutes has few steps
    masking = config.masking
    masking.contrast_power = 1.0  # few tokens should not be spent on what is nearly constant
    masking.start_ratio, masking.end_ratio = (
        1 - _VISIBLE * (1 - ratio) for ratio in (masking.start_ratio, masking.end_ratio)
    )
    return config
