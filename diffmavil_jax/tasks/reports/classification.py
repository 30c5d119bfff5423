"""The report of a classifier: scores with intervals, classes, confusions and mistakes."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import Sources
from diffmavil_jax.evaluation.classification import Answers, ClassifierSuite
from diffmavil_jax.evaluation.metrics import Interval, confusion
from diffmavil_jax.plan.buckets import Plan
from diffmavil_jax.report.content import (
    Confusion,
    Headline,
    Mistake,
    Report,
    Row,
    Table,
)
from diffmavil_jax.report.run_page import write_report
from diffmavil_jax.report.sound import to_wav
from diffmavil_jax.tasks.reports.facts import Facts, refusals, run_summary, spell_facts
from diffmavil_jax.training.metrics import read_metrics
from diffmavil_jax.units import Unit, spell

LEAD = (
    'A network learned to name what is in short clips, from clips whose class is known. This page says '
    'what ran, how often it is right on clips that it was not trained on, and where it is wrong.'
)
RESULTS = (
    'Each clip is scored once, from one crop. Test clips took no part in training, and nothing was chosen by '
    'their scores.'
)

TITLES = {
    'top1': 'Top-1 accuracy',
    'top5': 'Top-5 accuracy',
    'mean_recall': 'Mean recall of the classes',
    'map': 'Mean average precision',
    'auc': 'Area under the ROC curve',
    'd_prime': "d'",
}

_MISTAKES = 6  # shown


def unit_of(score: str) -> Unit:
    """The unit in which a score is written."""
    return 'number' if score in ('auc', 'd_prime') else 'percent'


def write(
    config: Config,
    plan: Plan,
    suites: Mapping[str, ClassifierSuite],
    sources: Sources,
    params: Any,
    workdir: pathlib.Path,
    facts: Facts,
) -> pathlib.Path:
    """Classifies all validation and test clips and writes report/; returns the path of index.html.

    `summary.json` has `test.SCORE.{value,low,high}` and the same under `validation`.
    """
    answers = {name: suite.answers(params) for name, suite in suites.items()}
    intervals = {name: answer.intervals() for name, answer in answers.items()}
    clips = {name: len(suite.source) for name, suite in suites.items()}
    for name, scores in intervals.items():
        kind = f'95 % jackknife intervals over {clips[name]:,} clips'
        print(f'{name}: {spell_scores(scores)}; {kind}{coverage_of(name, sources)}', flush=True)
    test = suites['test'].source
    refused = refusals([sources.train, sources.held_out])
    summary = run_summary(config, plan, params, len(refused), facts) | {
        name: {score: dataclasses.asdict(interval) for score, interval in scores.items()}
        for name, scores in intervals.items()
    }
    by_class = answers['test'].by_class()
    summary |= {
        'coverage': sources.coverage,
        'classes': dict(zip(test.label_names, by_class.tolist(), strict=True)),
        'clips': clips,
        'init': config.loaded,
    }
    single = not answers['test'].multi_label
    report = Report(
        title=config.name,
        command=facts.command,
        lead=LEAD,
        results=RESULTS,
        headlines=[
            _headline(score, interval, clips['test'], sources)
            for score, interval in intervals['test'].items()
        ],
        facts=spell_facts(summary, facts, plan),
        history=read_metrics(workdir),
        tables=[
            score_table(intervals, clips, sources.coverage),
            _class_table(answers['test'], test.label_names, by_class),
        ],
        confusion=_confusion(answers['test'], test.label_names) if single else None,
        mistakes=_mistakes(config, suites['test'], answers['test']) if single else (),
        refused=refused,
        notes=facts.notes,
        summary=summary,
    )
    return write_report(report, workdir / 'report')


def spell_scores(scores: Mapping[str, Interval]) -> str:
    """Such as `top1 91.2 % (89.0 % to 93.1 %), ...`."""
    texts = []
    for name, score in scores.items():
        value, low, high = (spell(v, unit_of(name)) for v in (score.value, score.low, score.high))
        texts.append(f'{name} {value} ({low} to {high})')
    return ', '.join(texts)


def coverage_of(name: str, sources: Sources) -> str:
    """How many of the test clips that the benchmark lists are present, if that is known."""
    return f'; {sources.coverage}' if name == 'test' and sources.coverage else ''


def score_table(
    intervals: Mapping[str, Mapping[str, Interval]], clips: Mapping[str, int], coverage: str
) -> Table:
    """Validation and test scores, each with its interval; `clips` says of how many clips."""
    scores = next(iter(intervals.values()))
    columns = [f'{part}{end}' for part in intervals for end in ('', ', from', ', to')]
    rows = [
        Row(
            TITLES[score],
            [v for s in intervals.values() for v in (s[score].value, s[score].low, s[score].high)],
            unit_of(score),
        )
        for score in scores
    ]
    counts = ', '.join(f'{clips[part]:,} {part} clips' for part in intervals)
    caption = f'“From” and “to” are the ends of the 95 % interval of a jackknife over clips; n = {counts}.'
    return Table('Scores', f'{caption} {coverage}'.strip(), columns, rows)


def _headline(score: str, interval: Interval, clips: int, sources: Sources) -> Headline:
    unit = unit_of(score)
    ends = f'{spell(interval.low, unit)} to {spell(interval.high, unit)}'
    detail = f'95 % jackknife interval over {clips:,} clips: {ends}'
    return Headline(
        f'{TITLES[score]}, test',
        spell(interval.value, unit),
        '; '.join(filter(None, (detail, sources.coverage))),
    )


def _class_table(answers: Answers, names: tuple[str, ...], by_class: np.ndarray) -> Table:
    clips = answers.targets.sum(axis=0)
    what = 'Average precision' if answers.multi_label else 'Recall'
    order = np.argsort(np.where(np.isnan(by_class), -1, by_class), kind='stable')
    rows = [Row(names[i], [by_class[i]], 'percent') for i in order]
    return Table(
        'Each class',
        f'{what} on the test clips ({int(clips.sum()):,} labels), lowest first.',
        [what],
        rows,
    )


def _confusion(answers: Answers, names: tuple[str, ...]) -> Confusion:
    return Confusion(confusion(answers.probabilities, answers.labels), names)


def _mistakes(config: Config, suite: ClassifierSuite, answers: Answers) -> list[Mistake]:
    guesses = answers.probabilities.argmax(axis=1)
    sure = answers.probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != answers.labels)
    names = suite.source.label_names
    mistakes = []
    for i in wrong[np.argsort(-sure[wrong], kind='stable')][:_MISTAKES]:
        clip = suite.source[int(i)]
        mistakes.append(
            Mistake(
                id=clip['id'],
                truth=names[answers.labels[i]],
                guess=names[guesses[i]],
                probability=float(sure[i]),
                sound=to_wav(clip['waveform'], config.data.sample_rate) if 'waveform' in clip else None,
                frames=clip['frames'] / np.float32(255) if 'frames' in clip else None,
            )
        )
    return mistakes
