"""How a run is trained, checkpointed, evaluated and spread over devices."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Literal

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.constraints import Below1, Count, NotNegative, Positive, Ratio, Share, Whole, must

Axis = Annotated[
    int, must('a positive number, or -1 for the devices that are left', lambda n: n > 0 or n == -1)
]
Sizes = Annotated[
    tuple[int, ...],
    must('positive whole numbers separated by commas, or empty', lambda sizes: all(n > 0 for n in sizes)),
]
Folds = Annotated[
    tuple[str, ...], must('at least two splits separated by commas, or empty', lambda folds: len(folds) != 1)
]
Samples = Annotated[
    Count, must('below 2**31: samples seen are counted in an int32 on the device', lambda n: n < 2**31)
]
Steps = Annotated[
    str,
    must(
        'START:STOP, of which START is smaller, or empty',
        lambda text: (
            not text
            or bool(re.fullmatch(r'\d+:\d+', text) and int(text.split(':')[0]) < int(text.split(':')[1]))
        ),
    ),
]
Trackers = Annotated[
    tuple[str, ...],
    must('wandb, mlflow, both separated by a comma, or empty', lambda names: {*names} <= {'wandb', 'mlflow'}),
]
Address = Annotated[
    str, must('HOST:PORT of process 0', lambda text: not text or bool(re.fullmatch(r'.+:\d+', text)))
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """The batch at the end ratio, and how it adapts while clips are cheaper.

    `visible_tokens` keeps batch x visible tokens constant, `macs` keeps the multiply-accumulates of a step
    constant. Which of them the paper used is not stated in the abstract. `listed` takes `sizes`, such as
    those that `main.py --fit_batch` finds for a given memory.
    """

    size: int = 512
    rule: Literal['fixed', 'visible_tokens', 'macs', 'listed'] = 'visible_tokens'
    sizes: Sizes = ()  # of the buckets, in order
    max_size: int = 1024
    multiple: Count = 8
    lr_scaling: Literal['none', 'sqrt', 'linear'] = 'sqrt'  # how the rate follows a batch other than `size`
    # Gradients are summed over so many microbatches, for devices that can't hold a batch. InfoNCE then
    # contrasts within a microbatch: this saves memory, and adds no negatives.
    microbatches: Count = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine, both in samples seen."""

    learning_rate: NotNegative = 4e-4  # the peak at batch.size
    warmup_samples: Whole = 0
    final_lr_fraction: NotNegative = 0.0
    weight_decay: NotNegative = 1e-5
    b1: Ratio = 0.9
    b2: Ratio = 0.95
    # Added to the root of the second moment.
    epsilon: Annotated[float, must('greater than 0', lambda value: value > 0)] = 1e-8
    clip_norm: NotNegative = 0.0  # 0: no clipping


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long a run is, how often it logs, and what stops it."""

    samples: Samples = 40_000_000
    log_every_samples: Count = 10_000
    # Services that get the metrics, besides TensorBoard's files; each needs the extra of its name.
    trackers: Trackers = ()
    max_nonfinite_steps: Count = 3  # in a row
    # START:STOP: writes a trace of these steps, counted from 0 at each start, into WORKDIR/profile.
    profile_steps: Steps = ''
    # A step that takes longer ends the process with an error; 0: no limit.
    stuck_minutes: NotNegative = 30.0
    stuck_pause_minutes: NotNegative = 180.0  # the same for an evaluation, a save or the compiler


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Which checkpoints are written and kept."""

    every_minutes: Positive = 15.0
    every_samples: Count = 1_000_000
    keep_latest: Count = 2
    keep_best: Whole = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured on held-out clips, and how often."""

    every_samples: Count = 2_000_000
    batch_size: Count = 64
    retrieval_clips: Annotated[int, must('a number of at least 2', lambda clips: clips >= 2)] = 256
    # Galleries of so many clips each, as far as the held-out clips suffice; retrieval is their mean. With one
    # of 256 the difference of two methods varies by 2 to 4 points from seed to seed, with 16 by less than 1.
    retrieval_galleries: Count = 1
    reconstruction_clips: Count = 128
    probe_train_clips: Whole = 2_048
    probe_eval_clips: Whole = 1_024
    mask_ratio: Ratio = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Training on labels, with `objective=classification`.

    Defaults are AudioMAE's on AudioSet (Huang et al. 2022b) where it has one.
    """

    modality: Literal['audio', 'video', 'both'] = 'both'
    scratch: bool = False  # takes network and front end from `init`, but no parameters
    # `none`: all parameters are trained. `linear`, `attentive`: the encoders are frozen, and a linear
    # layer on the mean of their tokens, or on a learnt query's attention to them, is trained.
    probe: Literal['none', 'linear', 'attentive'] = 'none'
    loss: Literal['auto', 'softmax', 'sigmoid'] = 'auto'  # auto: sigmoid where a clip may have several labels
    label_smoothing: Below1 = 0.0
    # The learning rate is multiplied by this for each layer towards the input.
    layer_decay: Annotated[float, must('a number above 0, up to 1', lambda value: 0 < value <= 1)] = 0.75
    drop_path: Below1 = 0.1  # of the last layer; falls to 0 at the first
    ema_decay: Below1 = 0.0  # of the exponential moving average of the parameters; 0: none
    # Shares of the tokens that are dropped: whole columns and rows of the spectrogram; any of the video.
    time_mask: Below1 = 0.2
    frequency_mask: Below1 = 0.2
    video_mask: Below1 = 0.2
    # The widest stripe that is blanked in the spectrogram, in frames and in mel bins.
    spec_augment_time: Whole = 0
    spec_augment_frequency: Whole = 0
    # What such a stripe has: 0 after normalisation, the mean; or 0 before it, as in AudioMAE.
    spec_augment_fill: Literal['mean', 'zero'] = 'mean'
    mixup_rate: Share = 0.0  # share of the clips that are mixed with another
    mixup_alpha: Positive = 10.0  # of the Beta distribution
    class_balanced: bool = False  # clips of rare classes are drawn more often
    # Of clips whose length is not that of `init`, also in pretraining: sin-cos positions go on and stored
    # ones are trimmed (`extend`), or both are interpolated.
    positions: Literal['extend', 'interpolate'] = 'extend'
    # Splits that are held out in turn, one run each, such as fold1,fold2; they replace data.eval_split.
    folds: Folds = ()
    validation_fraction: Below1 = 0.1  # of the training clips of each class
    select: Literal['last', 'best'] = 'last'  # the parameters that are tested; `best` on validation clips
    clips_per_class: Whole = 0  # trained on; 0: all

    @property
    def modalities(self) -> tuple[str, ...]:
        return MODALITIES if self.modality == 'both' else (self.modality,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """The axes of the mesh (-1: the devices that the others leave), and how hosts find each other."""

    data: Axis = -1
    fsdp: Axis = 1
    tensor: Axis = 1
    compilation_cache: str = '~/.cache/diffmavil_jax'  # empty: none
    # Without these, they come from the TPU pod, Slurm or MPI; a single process needs none.
    coordinator: Address = ''  # HOST:PORT of process 0
    processes: Whole = 0
    process: int = -1
    wait_s: Count = 300  # for the other processes to come at the start
    heartbeat_s: Count = 100  # a process that is silent for longer counts as lost, and the others end
