"""The plan as a table: what `main.py --plan` prints, and the rows of the report."""

from __future__ import annotations

from typing import Any

from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.units import percent, si

_HEADER = (
    'first sample', 'last sample', 'steps', 'batch', 'mask', 'audio', 'video', 'MACs/clip', 'MACs', 'saved',
)  # fmt: skip


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    """The buckets as dictionaries, with their multiply-accumulates and the share of the reference's saved."""
    rows = []
    for bucket in plan.buckets:
        clips = bucket.last_sample - bucket.first_sample
        rows.append(
            {
                'first_sample': bucket.first_sample,
                'last_sample': bucket.last_sample,
                'mask_ratio': round(bucket.mask_ratio, 6),
                'audio_tokens': bucket.audio_tokens,
                'video_tokens': bucket.video_tokens,
                'batch_size': bucket.batch_size,
                'steps': bucket.steps,
                'macs_per_clip': bucket.macs_per_clip,
                'macs': bucket.macs_per_clip * clips,
                'saved': 1 - bucket.macs_per_clip / plan.baseline_macs_per_clip,
            }
        )
    return rows


def plan_table(name: str, plan: Plan, audio_tokens: int, video_tokens: int) -> str:
    """The bucket table of `--plan`.

    Args:
        name: the name of the run.
        plan: its buckets.
        audio_tokens: audio tokens of a whole clip.
        video_tokens: video tokens of a whole clip.
    """
    total = (
        'total', f'{plan.total_samples:,}', f'{plan.total_steps:,}', '', '', '', '', '',
        si(plan.macs), percent(plan.saved),
    )  # fmt: skip
    lines = [_HEADER, *map(_cells, plan_rows(plan)), total]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = '\n'.join(
        '  '.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    buckets = f'{len(plan.buckets)} buckets' if len(plan.buckets) > 1 else '1 bucket'
    return (
        f'{name}: {buckets}; tokens visible of {audio_tokens} audio, {video_tokens} video\n'
        f'{table}\n'
        f'MACs are multiply-accumulates of the forward pass; saved is against {plan.baseline} '
        f'({si(plan.baseline_macs_per_clip)} a clip), at equal clips; below 0: the run costs more.'
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f'{row["first_sample"]:,}',
        f'{row["last_sample"]:,}',
        f'{row["steps"]:,}',
        f'{row["batch_size"]:,}',
        f'{row["mask_ratio"]:.3f}',
        str(row['audio_tokens']),
        str(row['video_tokens']),
        si(row['macs_per_clip']),
        si(row['macs']),
        percent(row['saved']),
    )
