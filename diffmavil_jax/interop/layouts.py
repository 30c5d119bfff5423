"""Where the parts of our networks are in the files of other projects: one layout for each project."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Collection, Iterable, Mapping


@dataclasses.dataclass(frozen=True)
class Layers:
    """Blocks named `prefix.0.norm1.weight` and so on, as timm names them."""

    prefix: str
    norms: str = ''  # how the names of their norms end


@dataclasses.dataclass(frozen=True)
class Branch:
    """Where one encoder is: the names of its parameters, and how they are laid out.

    Attributes:
        layers: groups of blocks that run one after the other.
        patches: the convolution that embeds patches.
        positions: tables that are added up, each with a row for each token or one row for all.
        class_token: empty if there is none; otherwise the first position belongs to it.
        norm: the last norm, which a file may lack; empty if there is none.
        picture: whether it was trained on pictures, so that positions are (height, width) and kernels see
            one frame.
        frequency_first: whether tokens and kernels of sound are (frequency, time).
    """

    layers: tuple[Layers, ...]
    patches: str
    positions: tuple[str, ...]
    class_token: str = ''
    norm: str = ''
    picture: bool = False
    frequency_first: bool = False

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of the names of all its parameters."""
        names = (
            *(part.prefix for part in self.layers),
            self.patches,
            *self.positions,
            self.class_token,
            self.norm,
        )
        return tuple(rf'{re.escape(name)}(\..*)?' for name in names if name)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The encoders of a file and, if it has one, its fusion.

    Attributes:
        encoders: by modality.
        front_end: the one that the audio encoder was trained with or, if it was trained on pictures, the one
            that such encoders are used with.
        frames: of a clip, if the file does not say.
        patch_frames: of a tubelet, if the file does not say.
        seconds: of a clip, if no encoder of sound tells.
        video_seconds: of the pictures beside longer sound; 0: as long as the sound.
        fusion: its blocks, which a file may lack.
        left_out: patterns of the names that are known to be of no use for features. A name that is neither
            used nor among them may change the features, so that the file is refused.
        remarks: how the network differs from the original.
    """

    encoders: Mapping[str, Branch]
    front_end: str = 'audiomae'
    frames: int = 8
    patch_frames: int = 2
    seconds: float = 10.0
    video_seconds: float = 0.0
    fusion: Layers | None = None
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def unknown(self, names: Iterable[str], modalities: Collection[str]) -> list[str]:
        """Those of the unused names that may matter for the encoders of these modalities."""
        others = [branch for m, branch in self.encoders.items() if m not in modalities]
        known = re.compile('|'.join([*self.left_out, *(p for b in others for p in b.patterns)]) or '(?!)')
        return [name for name in names if not known.fullmatch(name)]


# MAE on ImageNet (He et al. 2022), for either encoder or both. For sound, the kernel's colours are summed, as
# AudioMAE does it, so that a grey picture and a spectrogram of the same values look alike. The positions of a
# 14 x 14 picture are interpolated over time and frequency.
_MAE_VIT = Branch(
    layers=(Layers('blocks'),),
    patches='patch_embed.proj',
    positions=('pos_embed',),
    class_token='cls_token',
    norm='norm',
    picture=True,
)
# Decoders, and the heads of fine-tuned networks.
_DECODERS = (r'mask_token', r'decoder_.*')
_HEADS = (r'fc_norm\..*', r'head\..*')
_MAE = Layout(encoders={'audio': _MAE_VIT, 'video': _MAE_VIT}, left_out=(*_DECODERS, *_HEADS))

# AudioMAE (Huang et al. 2022b): one encoder of sound. Its positions were made for a grid of 8 x 64 and are
# added to tokens of 64 x 8 (time first), so the table is right only in the order in which it is stored.
_AUDIOMAE = Layout(
    encoders={'audio': dataclasses.replace(_MAE_VIT, picture=False)}, left_out=(*_DECODERS, *_HEADS)
)

# CAV-MAE (Gong et al. 2023): eleven layers of each modality, then one that both share. A modality alone
# passes the shared layer with norms of its own, and so do our encoders. CAV-MAE's joint pass, in which sound
# and picture enter the shared layer together, is not imported.
_CAVMAE = Layout(
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
    left_out=(
        *_DECODERS,
        r'mlp_head\..*',
        r'norm\..*',  # of the pass of both modalities, as norm1 and norm2 of the shared layer
        r'blocks_u\.\d+\.norm[12]\..*',
        r'blocks_[av]\.\d+\.norm[12]_[av]\..*',  # not used by the original either
    ),
    remarks=(
        'Layer norms add 1e-6 to the variance, where CAV-MAE adds 1e-5.',
        "Pictures are resampled by another filter than CAV-MAE's: the cosine of the features is about .9998.",
    ),
)

# MAViL (Huang et al. 2022), with the parameter names of its only public inference code, in AV-SUPERB.
_MAVIL = Layout(
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
    seconds=4.0,
    video_seconds=4.0,
    left_out=(*_DECODERS, r'(fc_norm|head)_(a|v|av)\..*'),
    remarks=(
        "AV-SUPERB's features are plain means of the tokens, which are normalised here before the mean.",
        'AV-SUPERB takes 8 pictures of 4 s beside 10 s of sound, squashes them to a square, and normalises '
        'each spectrogram by its own mean and deviation; here pictures are of the middle of the sound and '
        'cropped, and mean and deviation are those of the front end.',
    ),
)

LAYOUTS: Mapping[str, Layout] = types.MappingProxyType(
    {'mae': _MAE, 'audiomae': _AUDIOMAE, 'cavmae': _CAVMAE, 'mavil': _MAVIL}
)
