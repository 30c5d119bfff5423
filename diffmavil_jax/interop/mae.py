"""MAE on ImageNet (He et al. 2022), for either encoder or both.

For sound, the kernel's colours are summed, as AudioMAE does it, so that a grey picture and a
spectrogram of the same values look alike; and the positions of a 14 x 14 picture are interpolated
over time and frequency.
"""

from __future__ import annotations

from diffmavil_jax.interop.layout import Branch, Layers, Layout

VIT = Branch(
    layers=(Layers('blocks'),),
    patches='patch_embed.proj',
    positions=('pos_embed',),
    class_token='cls_token',
    norm='norm',
    picture=True,
)

LAYOUT = Layout(encoders={'audio': VIT, 'video': VIT})
