"""Opens the clips of a prepared dataset."""

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.source import PreparedSource

SPEC = ClipSpec(sample_rate=16_000, seconds=1.0, frames=8, frame_size=32)


def open_source(path, splits=('train',), spec=SPEC, max_bad_fraction=1.0):
    dataset = open_prepared(path)
    clips = sum(split.num_examples for split in dataset.splits.values())
    return PreparedSource(dataset, splits, spec, Ledger(dataset.path, clips, max_bad_fraction))
