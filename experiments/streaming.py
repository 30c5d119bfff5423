"""How fast prepared shards become host batches: python -m experiments.streaming.

Writes a prepared dataset of clips of 10 s with 8 JPEG frames of 224 x 224, from a folder of videos
(--folder=DIR) or from the generated world, and prints:

- the JPEG decoders that are installed here, on its pictures;
- what a clip costs, stage by stage, on one thread;
- clips per second, and per second of one core, into batches, with threads and with worker processes;
- the same with and without augmentation, in turns: 4 s of pictures at random starts, crops and flips;
- with --memory_clips=20000, the memory of all processes while that many clips go by.

--augmentation_only leaves out the rest. MAViL's clip needs --frames=20 stored pictures; --size=256 lets crops
be cut from more than they become.

CPU time is of this process and its workers: on a busy machine it says more than wall time does.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image

from diffmavil_jax.data.clip import ClipSource, ClipSpec
from diffmavil_jax.data.folder import open_folder
from diffmavil_jax.data.ledger import Ledger
from diffmavil_jax.data.pipeline import Loader, stack
from diffmavil_jax.data.prepared.dataset import open_prepared
from diffmavil_jax.data.prepared.format import Metadata, example_features
from diffmavil_jax.data.prepared.source import PreparedSource
from diffmavil_jax.data.sandbox import DecodePool
from diffmavil_jax.data.take import Takes
from diffmavil_jax.data.world import GeneratedWorld
from diffmavil_jax.parallel.allocator import keep_freed_memory

SPEC = ClipSpec(sample_rate=16_000, seconds=10.0, frames=8, frame_size=224)
BATCH = 64
DISTINCT_CLIPS = 200
JPEG_QUALITY = 90
HELD_OUT = 8
# MAViL's clip, and what its presets draw.
CLIP = dataclasses.replace(SPEC, video_seconds=4.0)
TAKES = Takes(0, start=True, video=True, min_area=0.5, max_aspect=4 / 3, flip=0.5)
ROUNDS = 5


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Clips of a source, over and over."""

    VERSION = tfds.core.Version('1.0.0')
    name = 'streaming'

    def __init__(self, *, source: ClipSource, clips: int, size: int, frames: int, **options: Any) -> None:
        self._source, self._clips, self._size, self._frames = source, clips, size, frames
        super().__init__(file_format='array_record', **options)

    def _info(self) -> tfds.core.DatasetInfo:
        metadata = Metadata(
            source='folder',
            seconds=SPEC.seconds,
            frames=self._frames,
            frame_size=self._size,
            frame_seconds=None,
        )
        return tfds.core.DatasetInfo(
            builder=self, features=example_features(), metadata=tfds.core.MetadataDict(metadata.to_dict())
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {'train': self._generate_examples(self._clips), 'eval': self._generate_examples(HELD_OUT)}

    def _generate_examples(self, clips: int) -> Iterator[tuple[int, dict[str, Any]]]:
        examples = []
        for i in range(min(DISTINCT_CLIPS, len(self._source), clips)):
            clip = self._source[i]
            sound = np.resize(clip['waveform'], SPEC.num_samples)  # repeated
            frames = [simplejpeg.encode_jpeg(frame, quality=JPEG_QUALITY) for frame in clip['frames']]
            examples.append({'audio': sound, 'frames': frames})
        for i in range(clips):
            text = {'id': str(i), 'start_s': 0.0, 'labels': [], 'source_hash': ''}
            yield i, examples[i % len(examples)] | text


def write_dataset(directory: str, folder: str, clips: int, size: int, frames: int = SPEC.frames) -> str:
    """Writes the shards; returns the directory of the dataset."""
    spec = ClipSpec(SPEC.sample_rate, 4.0 if folder else SPEC.seconds, frames, size)
    source: ClipSource = GeneratedWorld(spec, seed=0, length=DISTINCT_CLIPS)
    if folder:
        source = open_folder(
            folder,
            spec,
            eval_fraction=0.1,
            max_bad_fraction=1.0,
            cache_bytes=0,
            decoders=DecodePool(2),
        ).train
    builder = Builder(source=source, clips=clips, size=size, frames=frames, data_dir=directory)
    builder.download_and_prepare()
    return str(builder.data_dir)


def cpu_seconds() -> float:
    """CPU seconds so far of this process and its present workers."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def per_item(function: Callable[[Any], Any], items: list[Any], repeats: int = 3) -> float:
    """The least CPU milliseconds per item of a few rounds."""
    rounds = []
    for _ in range(repeats):
        begin = time.process_time()
        for item in items:
            function(item)
        rounds.append(1e3 * (time.process_time() - begin) / len(items))
    return min(rounds)


def jpeg_decoders() -> dict[str, Callable[[bytes], Any]]:
    """The JPEG decoders that are installed, by name; all yield RGB. PyTurboJPEG's wheel holds no decoder."""
    decoders: dict[str, Callable[[bytes], Any]] = {
        'simplejpeg': simplejpeg.decode_jpeg,
        'pillow': lambda jpeg: np.asarray(Image.open(io.BytesIO(jpeg))),
    }
    try:
        import cv2

        cv2.setNumThreads(1)
        flag = cv2.IMREAD_COLOR_RGB
        decoders['opencv'] = lambda jpeg: cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag)
    except ImportError:
        pass
    try:
        import imagecodecs

        decoders['imagecodecs'] = imagecodecs.jpeg8_decode
    except ImportError:
        pass
    return decoders


def stages(path: str, source: PreparedSource) -> None:
    """Prints the JPEG decoders, and what each stage of a clip costs."""
    train = tfds.builder_from_directory(path).info.splits['train']
    records, features = ArrayRecordDataSource(train.file_instructions), example_features()
    indices = list(range(0, len(source), max(1, len(source) // 200)))

    def read(i: int) -> Any:
        return features.deserialize_example_np(records[i])

    clips = [list(read(i)['frames']) for i in indices]
    print('\n| JPEG decoder | ms a picture | ms a clip |\n|---|---|---|')
    decoding = {}
    for name, decode in jpeg_decoders().items():
        decoding[name] = per_item(lambda frames, decode=decode: [decode(frame) for frame in frames], clips)
        print(f'| {name} | {decoding[name] / SPEC.frames:.3f} | {decoding[name]:.2f} |')

    whole = per_item(source.__getitem__, indices)
    batch = [source[i] for i in range(BATCH)]
    stacking = per_item(stack, [batch] * 5) / BATCH
    reading = per_item(read, indices)
    costs = {
        'read': reading,
        'JPEG': decoding['simplejpeg'],
        'crop, copy': max(0.0, whole - reading - decoding['simplejpeg']),
        'stack': stacking,
    }
    print('\n| stage | CPU ms a clip | share |\n|---|---|---|')
    for name, cost in costs.items():
        print(f'| {name} | {cost:.2f} | {100 * cost / sum(costs.values()):.0f} % |')
    print(f'| all | {sum(costs.values()):.2f} | {1e3 / sum(costs.values()):.0f} clips/s/core |')


def batches(
    source: PreparedSource, threads: int, workers: int, count: int, takes: Takes | None = None
) -> Iterator[Any]:
    """The batches of a Loader, as training reads them."""
    ahead = {'prefetch_batches': 2, 'largest_batch': BATCH}
    loader = Loader(source, seed=0, takes=takes, threads=threads, workers=workers, **ahead)
    return loader.batches(0, [BATCH] * count)


def throughput(source: PreparedSource, clips: int) -> None:
    """Prints clips per second, by wall clock and by CPU time, after the first batches."""
    print('\n| reading | clips/s | clips/s/core |\n|---|---|---|')
    for threads, workers in ((1, 0), (2, 0), (1, 1), (1, 2)):
        warm, count = 4, max(1, clips // BATCH)
        loaded = batches(source, threads, workers, warm + count)
        for _ in range(warm):
            next(loaded)
        begin, cpu = time.perf_counter(), cpu_seconds()
        for _ in range(count):
            next(loaded)
        wall, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
        del loaded
        how = f'{workers} workers of {threads} thread' if workers else f'{threads} threads'
        print(f'| {how} | {count * BATCH / wall:.0f} | {count * BATCH / cpu:.0f} |', flush=True)


def augmentation(path: str, clips: int) -> None:
    """Prints clips per second of one core with and without augmentation, each round of each."""
    dataset = open_prepared(path)
    source = PreparedSource(dataset, ['train'], CLIP, Ledger(path, clips, 0.0))
    ways: dict[str, Takes | None] = {'none': None, 'start, stretch, crop, flip': TAKES}
    speeds: dict[str, list[float]] = {how: [] for how in ways}
    for _ in range(ROUNDS):
        for how, takes in ways.items():
            warm, count = 2, max(1, clips // BATCH)
            loaded = batches(source, 1, 0, warm + count, takes)
            for _ in range(warm):
                next(loaded)
            cpu = cpu_seconds()
            for _ in range(count):
                next(loaded)
            speeds[how].append(count * BATCH / (cpu_seconds() - cpu))
            del loaded
    print('\n| augmentation | clips/s/core, median | each round |\n|---|---|---|')
    for how, each in speeds.items():
        print(
            f'| {how} | {np.median(each):.0f} | {", ".join(f"{speed:.0f}" for speed in each)} |', flush=True
        )


def memory(source: PreparedSource, clips: int, workers: int) -> None:
    """Prints the unshared memory of all processes, at ten times of a long run."""
    count = clips // BATCH
    print(f'\n| clips, {workers} workers | memory of all processes |\n|---|---|')
    for k, _ in enumerate(batches(source, 1, workers, count), start=1):
        if k % max(1, count // 10) == 0:
            processes = (psutil.Process(), *psutil.Process().children(recursive=True))
            used = sum(process.memory_full_info().uss for process in processes)
            print(f'| {k * BATCH:,} | {used / 2**20:,.0f} MB |', flush=True)


def main() -> None:
    """Writes the dataset and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--folder', default='', help='of videos; the generated world if not given')
    parser.add_argument('--clips', type=int, default=2_000)
    parser.add_argument('--size', type=int, default=224, help='of the stored pictures; larger ones are cut')
    parser.add_argument('--frames', type=int, default=SPEC.frames, help='stored pictures of a clip')
    parser.add_argument('--memory_clips', type=int, default=0)
    parser.add_argument('--augmentation_only', action='store_true')
    options = parser.parse_args()
    keep_freed_memory()  # as main.py does: a fresh page costs more than the copy into it
    with tempfile.TemporaryDirectory() as directory:
        path = write_dataset(directory, options.folder, options.clips, options.size, options.frames)
        dataset = open_prepared(path)
        source = PreparedSource(dataset, ['train'], SPEC, Ledger(path, options.clips, 0.0))
        size = sum(file.stat().st_size for file in pathlib.Path(path).iterdir())
        print(f'{options.clips:,} clips, {size / options.clips / 1e3:.0f} kB each')
        if not options.augmentation_only:
            stages(path, source)
            throughput(source, options.clips)
        if dataset.timing.pictures_within(CLIP.video_span) >= CLIP.frames:
            augmentation(path, options.clips)
        for workers in (0, 2) if options.memory_clips else ():
            memory(source, options.memory_clips, workers)


if __name__ == '__main__':
    main()
