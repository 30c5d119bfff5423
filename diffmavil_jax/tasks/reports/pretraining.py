"""Puts a pretraining run's numbers and pictures into its report."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import Sources
from diffmavil_jax.evaluation import showcase
from diffmavil_jax.evaluation.held_out import FEATURES, spread
from diffmavil_jax.evaluation.suite import Suite
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.plan.table import plan_rows
from diffmavil_jax.report import sheets
from diffmavil_jax.report.content import Report, Row, Table, lookup, pretraining_headlines
from diffmavil_jax.report.run_page import write_report
from diffmavil_jax.tasks.reports.facts import Facts, refusals, run_summary, spell_facts
from diffmavil_jax.training.metrics import read_metrics

_RECONSTRUCTIONS = 3
_RETRIEVALS = 3
_KINDS = {'trained': '', 'untrained': 'untrained.', 'raw features': 'raw.', 'chance': 'chance.'}


def write(
    config: Config,
    plan: Plan,
    suite: Suite,
    sources: Sources,
    trained: Any,
    untrained: Any,
    workdir: pathlib.Path,
    facts: Facts,
) -> pathlib.Path:
    """Runs the full evaluation and writes report/; returns the path of index.html."""
    summary = suite.full(trained, untrained)
    network, held_out = suite.network, sources.held_out
    reconstructed = spread(len(held_out), _RECONSTRUCTIONS) if network.predicts_patches else []
    features = suite.features(trained, suite.retrieval_clips)
    queries = spread(len(suite.retrieval_clips), _RETRIEVALS)
    refused = refusals([sources.train, sources.held_out])
    summary |= run_summary(config, plan, trained, len(refused), facts) | {'coverage': sources.coverage}
    report = Report(
        title=config.name,
        command=facts.command,
        headlines=pretraining_headlines(summary),
        facts=spell_facts(summary, facts, plan),
        plan=plan_rows(plan),
        history=read_metrics(workdir),
        tables=tables(summary),
        reconstructions=showcase.reconstructions(network, trained, held_out, reconstructed),
        retrievals=showcase.retrievals(
            network, held_out, suite.retrieval_clips, features, queries, sheets.MAX_MATCHES
        ),
        refused=refused,
        notes=_notes(config, suite, facts.notes),
        summary=summary,
    )
    return write_report(report, workdir / 'report')


def _notes(config: Config, suite: Suite, notes: Sequence[str]) -> list[str]:
    texts = list(notes)
    if not suite.network.predicts_patches:
        texts.append(f'This model predicts the tokens of the teacher {config.teacher}, not patches.')
        return texts
    if config.diffusion.enabled:
        texts.append(
            f'Reconstructions start from step {suite.network.timestep} of {config.diffusion.timesteps} '
            'of the noise schedule and are made in one step.'
        )
    if config.loss.normalize_targets:
        texts.append(
            'This model predicts patches normalised to mean 0 and variance 1; for pictures and errors, '
            "each patch's own mean and scale were put back, which makes its low-frequency error small."
        )
    return texts


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """The numbers of a summary that are there, with the coverage of the held-out clips."""
    numbers = [
        Table(
            'Finding the sound of a picture, and the picture of a sound',
            'Held-out clips, by cosine of pooled features; a tie is no hit. Raw: mapped linearly.',
            tuple(_KINDS),
            [
                row
                for direction, title in (('a2v', 'Sound to picture'), ('v2a', 'Picture to sound'))
                for row in (
                    *(_row(summary, f'{title}, top {k}', f'retrieval.{direction}.r{k}') for k in (1, 5, 10)),
                    _row(
                        summary,
                        f'{title}, median rank',
                        f'retrieval.{direction}.median_rank',
                        'number',
                        'lower',
                    ),
                )
            ],
        ),
        Table(
            'Reconstruction error at the masked patches',
            'Error energy over target energy, below and above a quarter of the Nyquist frequency; '
            'predicting the mean gives 1.',
            tuple(_KINDS),
            [
                _row(
                    summary,
                    f'{title}, {band} frequencies',
                    f'reconstruction.{modality}.{band}',
                    'number',
                    'lower',
                )
                for modality, title in (('audio', 'Sound'), ('video', 'Picture'))
                for band in ('low', 'high')
            ],
        ),
        Table(
            'Classes read from frozen features',
            'Top-1 of a closed-form linear probe (penalised discriminant analysis) and of 20 nearest '
            'neighbours; raw: the better of principal components and log-mel statistics.',
            tuple(_KINDS),
            [
                _row(summary, f'{title}, {feature}', f'{name}.{feature}.top1')
                for name, title in (('probe', 'Linear probe'), ('knn', 'Neighbours'))
                for feature in FEATURES
            ],
        ),
        Table(
            'What made the clip, read from frozen features',
            'Held-out clips: R² of ridge regression for numbers and times, accuracy of the linear probe for '
            'shape and material.',
            tuple(_KINDS),
            [
                _row(summary, f'{factor}, {feature}', f'world.factors.{feature}.{factor}', 'number')
                for factor in (lookup(summary, 'world.factors.audio') or {})
                for feature in FEATURES
            ],
        ),
    ]
    # Beside every score: one on fewer clips than others had can't be compared.
    coverage = f' {summary["coverage"]}.' if summary['coverage'] else ''
    return [
        dataclasses.replace(_filled(table), caption=table.caption + coverage)
        for table in numbers
        if any(row.values[0] is not None for row in table.rows)
    ]


def _row(
    summary: Mapping[str, Any], label: str, name: str, unit: Any = 'percent', better: Any = 'higher'
) -> Row:
    return Row(label, [lookup(summary, prefix + name) for prefix in _KINDS.values()], unit, better)


def _filled(table: Table) -> Table:
    """Without the columns that have no number."""
    keep = [i for i in range(len(table.columns)) if any(row.values[i] is not None for row in table.rows)]
    rows = [dataclasses.replace(row, values=[row.values[i] for i in keep]) for row in table.rows]
    return dataclasses.replace(table, columns=[table.columns[i] for i in keep], rows=rows)
