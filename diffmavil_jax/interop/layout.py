"""What a layout is: where the parts of our networks are in the files of another project."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Layers:
    """Blocks named `prefix.0.norm1.weight` and so on, as timm names them."""

    prefix: str
    norms: str = ''  # what the names of their norms end with


@dataclasses.dataclass(frozen=True)
class Branch:
    """One encoder.

    Attributes:
        layers: of blocks that run one after the other.
        patches: the convolution that embeds patches.
        positions: tables that are added up, each with a row a token or one for all.
        class_token: empty without one; where there is one, the first position is its own.
        norm: the last norm, which a file may lack; empty without one.
        picture: it was trained on pictures: positions are of (height, width), kernels see one frame.
        frequency_first: tokens and kernels of sound are (frequency, time).
    """

    layers: tuple[Layers, ...]
    patches: str
    positions: tuple[str, ...]
    class_token: str = ''
    norm: str = ''
    picture: bool = False
    frequency_first: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """The encoders of a file and, if it has one, its fusion.

    Attributes:
        encoders: by modality.
        front_end: what the audio encoder was trained on; for pictures, what such encoders are used with.
        frames: of a clip, where the file does not tell.
        patch_frames: of a tubelet, where the file does not tell.
        fusion: its blocks, which a file may lack.
        remarks: in what the network differs from the original.
    """

    encoders: Mapping[str, Branch]
    front_end: str = 'audiomae'
    frames: int = 8
    patch_frames: int = 2
    fusion: Layers | None = None
    remarks: tuple[str, ...] = ()
