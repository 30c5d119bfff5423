"""The report of a pretraining run, from its scores, examples and history."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import Sources
from diffmavil_jax.evaluation import showcase
from diffmavil_jax.evaluation.held_out import spread
from diffmavil_jax.evaluation.suite import Suite
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.plan.table import plan_rows
from diffmavil_jax.report import sheets
from diffmavil_jax.report.content import Report
from diffmavil_jax.report.run_page import write_report
from diffmavil_jax.tasks.reports import pretraining_scores
from diffmavil_jax.tasks.reports.facts import Facts, refusals, run_summary, spell_facts
from diffmavil_jax.training.metrics import read_metrics

_RECONSTRUCTIONS = 3  # clips shown
_RETRIEVALS = 3  # queries shown of each direction
_LEAD = (
    'A network was shown short clips of video with their sound, and most of each clip was hidden from it. '
    'It learned to fill in the hidden parts, and to tell which sound belongs to which picture. No label was '
    'used. This page says what ran, how it went, and what the network can do now.'
)


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
    """Runs the full evaluation and writes report/ in `workdir`; returns the path of index.html.

    Args:
        config: of the run.
        plan: its buckets.
        suite: the evaluations.
        sources: clips, of which the held-out ones are shown.
        trained: parameters.
        untrained: parameters before training, for comparison.
        workdir: with the history of the run in metrics.jsonl.
        facts: of the process.
    """
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
        lead=_LEAD,
        headlines=pretraining_scores.headlines(summary),
        headlines_note=pretraining_scores.HEADLINES_NOTE,
        facts=spell_facts(summary, facts, plan),
        plan=plan_rows(plan),
        history=read_metrics(workdir),
        tables=pretraining_scores.tables(summary),
        results=pretraining_scores.RESULTS,
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
        texts.append(f'This network predicts the tokens of the teacher {config.teacher}, not patches.')
        return texts
    if config.diffusion.enabled:
        texts.append(
            f'Reconstructions start from step {suite.network.timestep} of {config.diffusion.timesteps} '
            'of the noise schedule and take one step.'
        )
    if config.loss.normalize_targets:
        texts.append(
            'This network predicts patches normalised to mean 0 and variance 1. For pictures and errors each '
            'patch gets its own mean and scale back, which makes the low-frequency error small.'
        )
    return texts
