"""Decodes the same clips with this package and with its peers: python -m experiments.throughput decode.

Every decoder delivers 8 frames, shown at the same times, scaled to 224 pixels on the shorter side
and cut to a square, and the sound as 16 kHz mono where it can (opencv can't). All use one thread.
They take turns, so that what else the machine does hits all of them; CPU time counts. Peers that
are not installed are left out: pip install torchcodec torch, decord, opencv-python-headless.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from diffmavil_jax.data import media
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.sandbox import DecodePool

MEDIA = pathlib.Path(__file__).parent.parent / 'tests' / 'data' / 'media'

# (waveform int16 [samples] or None, frames uint8 [t h w 3])
Decoded = tuple[np.ndarray | None, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Job:
    """A clip to decode."""

    path: str
    start_s: float
    spec: ClipSpec

    @property
    def times(self) -> list[float]:
        step = self.spec.seconds / self.spec.frames
        return [self.start_s + (i + 0.5) * step for i in range(self.spec.frames)]

    @property
    def end_s(self) -> float:
        return self.start_s + self.spec.seconds


@dataclasses.dataclass(frozen=True)
class Peer:
    """A decoder, and whether it delivers sound."""

    decode: Callable[[Job], Decoded]
    sound: bool


def scaled_size(height: int, width: int, size: int) -> tuple[int, int]:
    """The size with `size` pixels on the shorter side."""
    scale = size / min(height, width)
    return max(size, round(height * scale)), max(size, round(width * scale))


def square(frames: np.ndarray, size: int) -> np.ndarray:
    """Cuts out the centre."""
    top, left = (frames.shape[1] - size) // 2, (frames.shape[2] - size) // 2
    return np.ascontiguousarray(frames[:, top : top + size, left : left + size])


def with_torchcodec(mode: str) -> Callable[[Job], Decoded]:
    """VideoDecoder and AudioDecoder; `mode` is how it seeks."""
    import torch
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    torch.set_num_threads(1)

    def decode(job: Job) -> Decoded:
        video = VideoDecoder(job.path, seek_mode=mode, num_ffmpeg_threads=1)
        frames = video.get_frames_played_at(job.times).data
        size = scaled_size(*frames.shape[-2:], job.spec.frame_size)
        frames = torch.nn.functional.interpolate(frames, size, mode='bilinear', antialias=True)
        audio = AudioDecoder(job.path, sample_rate=job.spec.sample_rate, num_channels=1)
        sound = audio.get_samples_played_in_range(job.start_s, job.end_s).data[0]
        waveform = (sound * 32_768).clamp(-32_768, 32_767).to(torch.int16).numpy()
        return waveform, square(frames.permute(0, 2, 3, 1).numpy(), job.spec.frame_size)

    return decode


def with_decord() -> Callable[[Job], Decoded]:
    """VideoReader and AudioReader, scaled by opencv where that is installed, or else by Pillow."""
    import decord
    from PIL import Image

    def decode(job: Job) -> Decoded:
        video = decord.VideoReader(job.path, num_threads=1)
        begins = video.get_frame_timestamp(np.arange(len(video)))[:, 0]
        shown = np.maximum(0, np.searchsorted(begins, job.times, side='right') - 1)
        frames = video.get_batch(shown).asnumpy()
        high, wide = scaled_size(*frames.shape[1:3], job.spec.frame_size)
        frames = np.stack(
            [np.asarray(Image.fromarray(f).resize((wide, high), Image.Resampling.BILINEAR)) for f in frames]
        )
        audio = decord.AudioReader(job.path, sample_rate=job.spec.sample_rate, mono=True)
        first = round(job.start_s * job.spec.sample_rate)
        sound = audio[first : first + job.spec.num_samples].asnumpy()[0]
        return (sound * 32_768).clip(-32_768, 32_767).astype(np.int16), square(frames, job.spec.frame_size)

    return decode


def with_opencv() -> Callable[[Job], Decoded]:
    """VideoCapture: no sound, and frames are known by their times only once they are decoded."""
    import cv2

    cv2.setNumThreads(1)

    def decode(job: Job) -> Decoded:
        capture = cv2.VideoCapture(job.path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if job.start_s:
            capture.set(cv2.CAP_PROP_POS_MSEC, 1e3 * job.start_s)
        half_frame_s = 0.5 / capture.get(cv2.CAP_PROP_FPS)
        frames = []
        while len(frames) < job.spec.frames and capture.grab():
            if capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3 + half_frame_s >= job.times[len(frames)]:
                image = capture.retrieve()[1]
                high, wide = scaled_size(*image.shape[:2], job.spec.frame_size)
                method = cv2.INTER_AREA if high < image.shape[0] else cv2.INTER_LINEAR
                frames.append(cv2.cvtColor(cv2.resize(image, (wide, high), interpolation=method), 4))
        capture.release()
        return None, square(np.stack(frames), job.spec.frame_size)

    return decode


def peers() -> dict[str, Peer]:
    """The peers that are installed, by name."""
    makers: dict[str, tuple[Callable[[], Callable[[Job], Decoded]], bool]] = {
        'torchcodec, exact': (lambda: with_torchcodec('exact'), True),
        'torchcodec, approximate': (lambda: with_torchcodec('approximate'), True),
        'decord': (with_decord, True),
        'opencv, no sound': (with_opencv, False),
    }
    found = {}
    for name, (make, sound) in makers.items():
        try:
            found[name] = Peer(make(), sound)
        except (ImportError, OSError, RuntimeError) as error:
            print(f'{name}: not installed ({str(error).splitlines()[0]})')
    return found


def ours(job: Job) -> Decoded:
    """This package, with sound."""
    return media.decode(job.path, job.start_s, job.spec)


def ours_without_sound(job: Job) -> Decoded:
    """This package, for the comparison with a peer that has none."""
    _, frames = media.decode(job.path, job.start_s, job.spec, ['video'])
    assert frames is not None
    return None, frames


def jobs_in(folder: pathlib.Path, seconds: float, size: int) -> list[Job]:
    """The middle clip of each file that has sound and pictures."""
    jobs = []
    for path in sorted(folder.rglob('*')):
        try:
            info = media.probe(path)
            spec = ClipSpec(16_000, min(seconds, info.duration_s - 0.1), 8, size)
            # Between the frames of common rates, so that rounding does not decide which one is shown.
            job = Job(str(path), int(5 * (info.duration_s - spec.seconds)) / 10 + 0.013, spec)
            ours(job)
        except media.MediaError as error:
            if path.is_file():
                print(f'{path.name}: left out ({error})')
        else:
            jobs.append(job)
    return jobs


def timed(decode: Callable[[Job], Decoded], job: Job) -> tuple[float, Decoded]:
    """CPU milliseconds of all threads, and the result."""
    begin = time.process_time()
    result = decode(job)
    return 1e3 * (time.process_time() - begin), result


def difference(result: Decoded, reference: Decoded) -> str:
    """The distance of a result from the reference: in grey levels, and in ms by which its sound is late."""
    levels = np.abs(result[1].astype(int) - reference[1]).mean()
    if result[0] is None or reference[0] is None:
        return f'{levels:.1f}'
    length = 2 * max(len(result[0]), len(reference[0]))
    spectra = [np.fft.rfft(sound.astype(float), length) for sound in (result[0], reference[0])]
    lag = int(np.argmax(np.fft.irfft(spectra[0] * spectra[1].conj(), length)))
    return f'{levels:.1f}, {(lag - length if lag > length // 2 else lag) / 16:.1f}'


def compare(jobs: list[Job], repeats: int) -> None:
    """Prints a row a file: our time, and the peers' as multiples of it."""
    others = peers()
    decoders = {'ours': ours, 'ours, no sound': ours_without_sound}
    decoders |= {name: peer.decode for name, peer in others.items()}
    totals: dict[str, list[float]] = {name: [] for name in decoders}
    print(f'\n| file | ours, ms | {" | ".join(others)} |\n|---|---|{"---|" * len(others)}')
    for job in jobs:
        times: dict[str, list[float]] = {name: [] for name in decoders}
        differences = {}
        reference = ours(job)
        for _ in range(repeats):
            for name, decode in decoders.items():
                try:
                    spent, result = timed(decode, job)
                except Exception as error:
                    differences[name] = f'failed: {str(error).splitlines()[0][:40]}'
                else:
                    times[name].append(spent)
                    differences[name] = difference(result, reference)
        median = {name: statistics.median(spent) for name, spent in times.items() if spent}
        cells = []
        for name, peer in others.items():
            base = 'ours' if peer.sound else 'ours, no sound'
            if name in median:
                totals[name].append(median[name] / median[base])
                cells.append(f'{median[name] / median[base]:.2f} ({differences[name]})')
            else:
                cells.append(differences[name])
        print(f'| {pathlib.Path(job.path).name} | {median["ours"]:.1f} | {" | ".join(cells)} |', flush=True)
    mean = [f'{statistics.geometric_mean(totals[name]):.2f}' if totals[name] else '-' for name in others]
    print(f'| geometric mean | | {" | ".join(mean)} |')
    print('\nTheir CPU time over ours: above 1, ours is faster. In brackets, the distance from our result:')
    print('mean difference of the pictures in grey levels, and how many ms later the sound is.')


def overhead(jobs: list[Job], repeats: int) -> None:
    """Prints what decoding in a worker process costs besides."""

    def total() -> float:
        processes = (psutil.Process(), *psutil.Process().children(recursive=True))
        return sum(process.cpu_times().user + process.cpu_times().system for process in processes)

    ratios = []
    with DecodePool(workers=1) as pool:
        for job in jobs:
            pool.decode(job.path, job.start_s, job.spec)
        for _ in range(repeats):
            begin = total()
            for job in jobs:
                ours(job)
            middle = total()
            for job in jobs:
                pool.decode(job.path, job.start_s, job.spec)
            ratios.append((total() - middle) / (middle - begin))
    print(f'\nIn a worker process with a time-out: {statistics.median(ratios):.3f} of the CPU time without.')


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--folder', type=pathlib.Path, default=MEDIA, help='of videos with sound')
    parser.add_argument('--seconds', type=float, default=4.0)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--repeats', type=int, default=7)
    options: Any = parser.parse_args()
    jobs = jobs_in(options.folder, options.seconds, options.size)
    compare(jobs, options.repeats)
    overhead(jobs, options.repeats)


if __name__ == '__main__':
    main()
