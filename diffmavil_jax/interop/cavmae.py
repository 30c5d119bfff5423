"""CAV-MAE (Gong et al. 2023): eleven layers of each modality, then one that both share.

A modality alone passes the shared layer with norms of its own, and so do our encoders. Sound and
picture together would enter the shared layer before it: that pass is not taken over.
"""

from __future__ import annotations

from diffmavil_jax.interop.layout import Branch, Layers, Layout

LAYOUT = Layout(
    encoders={
        'audio': Branch(
            layers=(Layers('blocks_a'), Layers('blocks_u', norms='_a')),
            patches='patch_embed_a.proj',
            positions=('pos_embed_a', 'modality_a'),
            norm='norm_a',
            frequency_first=True,
        ),
        'video': Branch(
            layers=(Layers('blocks_v'), Layers('blocks_u', norms='_v')),
            patches='patch_embed_v.proj',
            positions=('pos_embed_v', 'modality_v'),
            norm='norm_v',
            picture=True,
        ),
    },
    front_end='cavmae',
    frames=1,
    patch_frames=1,
    remarks=('Layer norms add 1e-6 to the variance, where CAV-MAE adds 1e-5.',),
)
