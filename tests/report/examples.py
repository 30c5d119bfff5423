"""Content of a report, drawn from a seed, with characters that HTML must escape."""

import math

import numpy as np

from diffmavil_jax.report import content


def stages(rng, shape, start=True):
    target = rng.random(shape)
    hidden = np.zeros(shape, bool)
    hidden[: shape[0] // 2] = True
    return content.Stages(
        target=target,
        masked=np.where(hidden, np.nan, target),
        prediction=np.where(hidden, 0.5, target),
        start=np.where(hidden, rng.standard_normal(shape), target) if start else None,
    )


def reconstruction(rng, start=True):
    return content.Reconstruction(
        id='<clip> & "one"',
        audio=stages(rng, (32, 16), start),
        video=stages(rng, (4, 8, 8, 3), start),
        seconds=0.32,
    )


def retrieval(rng, direction):
    shapes = [(32, 16), (4, 8, 8, 3)]
    query, other = shapes if direction == 'audio to video' else shapes[::-1]
    matches = [content.Match(rng.random(other), 0.9 - 0.1 * i, i == 2) for i in range(6)]
    return content.RetrievalExample(
        direction=direction, query=rng.random(query), matches=matches, true_rank=3
    )


def history():
    lines = [
        {'samples': 64 * i, 'loss': 9 / (i + 1), 'audio': 1 / (i + 1), 'inter': 4.0, 'mask_ratio': 0.9,
         'batch_size': 64, 'learning_rate': 1e-3, 'note': 'text', 'elapsed_s': i}
        for i in range(1, 8)
    ]  # fmt: skip
    lines[3]['audio'] = math.nan
    lines.append(
        {'samples': 256, 'eval/retrieval.a2v.r10': 0.2, 'eval/retrieval.v2a.r10': 0.3, 'eval/$x$': None}
    )
    return lines


def full_report():
    rng = np.random.default_rng(0)
    bucket = {
        'first_sample': 0, 'last_sample': 1234, 'mask_ratio': 0.9, 'audio_tokens': 10, 'video_tokens': 4,
        'batch_size': 64, 'steps': 20, 'macs_per_clip': 2.3e9, 'macs': 3e12, 'saved': 0.25,
    }  # fmt: skip
    return content.Report(
        title='<b>',
        command='python main.py --config="a&b"',
        headlines=[content.Headline('Clips <seen>', '1,234')],
        facts={'Device': 'CPU <2 cores>', 'Seed': '0'},
        plan=[bucket, bucket | {'macs': 1e12, 'saved': 0.5, 'steps': 12}, bucket | {'mask_ratio': None}],
        history=history(),
        tables=[
            content.Table(
                '<i>Retrieval',
                'a & b',
                ['trained', 'untrained'],
                [
                    content.Row('R@1', [0.418, 0.1], 'percent', 'higher'),
                    content.Row('rank', [math.nan, None], better='lower'),
                ],
            )
        ],
        reconstructions=[reconstruction(rng)],
        retrievals=[retrieval(rng, d) for d in ('video to audio', 'audio to video')],
        refused=[('a<.mp4', 'broken: <atom>'), ('b.mp4', 'broken: tail'), ('c.mp4', 'no audio')],
        notes=['A <note>.'],
        summary={
            'a': {'b': 0.5}, 'list': [1, 2], 'nan': math.nan, 'inf': [np.float32('inf')],
            'numpy': np.float64(0.25), 'int': np.int64(3), 'flag': True, 'none': None, 'text': 'é',
            'macs': {'reference': 'MAViL at 0.8'},
        },
    )  # fmt: skip
