"""MAViL (Huang et al. 2022), as its only public inference code, that of AV-SUPERB, names its parameters."""

from __future__ import annotations

from diffmavil_jax.interop.layout import Branch, Layers, Layout

LAYOUT = Layout(
    encoders={
        'audio': Branch(
            layers=(Layers('blocks'),),
            patches='patch_embed.proj',
            positions=('pos_embed',),
            class_token='cls_token',
        ),
        'video': Branch(
            layers=(Layers('blocks_v'),),
            patches='patch_embed_v.proj',
            positions=('pos_embed_v',),
            class_token='cls_token_v',
        ),
    },
    fusion=Layers('blocks_av'),
)
