"""The TFDS builder of prepared datasets: makes shards in a Beam pipeline, then publishes them.

The elements of the pipeline are the numbers of shards, and a worker writes a shard itself. So no sound or
picture goes through Beam, a worker needs the memory of one clip, and a killed run loses only the shards that
were being made. TFDS writes the description of the dataset and moves the whole into place in one step.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import logging
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from etils import epath

from diffmavil_jax.atomic import replacing, write_json
from diffmavil_jax.data.clip import DataError
from diffmavil_jax.data.prepare import summary as summary_lib
from diffmavil_jax.data.prepare import worker
from diffmavil_jax.data.prepare.shard import make_shard
from diffmavil_jax.data.prepare.summary import Summary
from diffmavil_jax.data.prepare.work import DoneShard, Work, link_or_copy
from diffmavil_jax.data.prepared.format import Metadata, example_features
from diffmavil_jax.data.prepared.label_file import write_labels

VERSION = '1.0.0'
REPORT, MANIFEST = 'prepare_report.json', 'manifest.jsonl'
DIRECT_RUNNER = 'DirectRunner'

_PUBLISHING_THREADS = 16

Progress = Callable[[int, int], None]  # shards done, shards in all


@dataclasses.dataclass(frozen=True)
class Runner:
    """Where a pipeline runs.

    Attributes:
        name: of a Beam runner.
        workers: processes of DIRECT_RUNNER; with 1 it runs in this process.
        flags: Beam's flags for another runner.
    """

    name: str = DIRECT_RUNNER
    workers: int = 1
    flags: Sequence[str] = ()

    def pipeline(self) -> beam.Pipeline:
        """An empty pipeline.

        Raises:
            DataError: the runner or a flag is not known.
        """
        if self.name != DIRECT_RUNNER:
            try:
                return beam.Pipeline(options=PipelineOptions([f'--runner={self.name}', *self.flags]))
            except (ValueError, ImportError) as error:
                raise DataError(f'--runner={self.name}: {error}') from error
        if self.flags:
            raise DataError(
                f'{" ".join(self.flags)}: the {DIRECT_RUNNER} takes --workers, and no flag of Beam.'
            )
        logging.getLogger('apache_beam').setLevel(logging.ERROR)  # it warns of options that it does not need
        options = PipelineOptions([f'--direct_num_workers={self.workers}'])
        environment = None
        if self.workers > 1:
            command = f'{shlex.quote(sys.executable)} -m {worker.__name__}'
            environment = SubprocessSDKEnvironment.from_command_string(command)
        # Given by its name, Beam would first try to download another runner.
        return beam.Pipeline(FnApiRunner(environment), options)


class PreparedBuilder(tfds.core.dataset_builder.FileReaderBuilder):
    """Builds DATA_DIR/name/VERSION."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        *,
        name: str,
        data_dir: epath.Path,
        work: Work,
        metadata: Metadata,
        runner: Runner,
        facts: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        """Prepares the builder; nothing is made yet.

        Args:
            name: of the dataset.
            data_dir: the directory of all datasets.
            work: the shards to make.
            metadata: of the dataset.
            runner: where the pipeline runs.
            facts: entries that the report has besides the counts.
            progress: is called every few seconds.
        """
        self.name = name
        self._work, self._metadata, self._runner = work, metadata, runner
        self._facts, self._progress = facts, progress
        super().__init__(data_dir=data_dir, file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f'Clips of {self._metadata.source}, by `diffmavil prepare`.',
            features=example_features(),
            metadata=tfds.core.MetadataDict(self._metadata.to_dict()),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Makes the shards that are not done, and publishes all shards in `self.data_path`.

        Raises:
            DataError: every clip was refused.
        """
        del dl_manager, download_config  # there is nothing to download
        self._make_shards()
        summary = Summary()
        with replacing(self.data_path / MANIFEST) as path, open(path, 'w', encoding='utf-8') as file:
            for outcome in self._work.outcomes():
                summary.add(outcome)
                file.write(summary_lib.manifest_line(outcome))
        report = {**self._facts, **summary.to_dict()}
        if not report['written']:
            raise DataError(_nothing_left(report))
        self.info.set_splits(tfds.core.splits.SplitDict(self._publish()))
        self.info.metadata['expected'] = summary.expected
        write_json(self.data_path / REPORT, report)

    def _make_shards(self) -> None:
        remaining = [i for i in range(self._work.num_shards) if not self._work.is_done(i)]
        if not remaining:
            return
        with self._reporting(), self._runner.pipeline() as pipeline:
            _ = (
                pipeline
                | 'Shards' >> beam.Create(remaining)
                | 'Spread' >> beam.Reshuffle()
                | 'MakeShard' >> beam.Map(make_shard, folder=str(self._work.folder))
            )
        if missing := [i for i in remaining if not self._work.is_done(i)]:
            raise RuntimeError(
                f'{self._runner.name} ended, and {len(missing)} of {self._work.num_shards} shards are not in '
                f'{self._work.folder}: do all workers see this folder?'
            )

    def _publish(self) -> list[tfds.core.SplitInfo]:
        """Links the shards that have clips into the dataset, by split and number, and writes their labels."""
        by_split: dict[str, list[DoneShard]] = collections.defaultdict(list)
        for index in range(self._work.num_shards):
            shard = self._work.done(index)
            if shard.num_examples:
                by_split[shard.split].append(shard)
        infos = []
        with concurrent.futures.ThreadPoolExecutor(_PUBLISHING_THREADS) as pool:
            for split, shards in by_split.items():
                template = self._get_filename_template(split_name=split)
                targets = template.sharded_filepaths(len(shards))
                list(pool.map(link_or_copy, [shard.data for shard in shards], targets))
                write_labels(self.data_path, split, [labels for shard in shards for labels in shard.labels])
                infos.append(
                    tfds.core.SplitInfo(
                        name=split,
                        shard_lengths=[shard.num_examples for shard in shards],
                        num_bytes=sum(shard.num_bytes for shard in shards),
                        filename_template=template,
                    )
                )
        return infos

    @contextlib.contextmanager
    def _reporting(self, every_s: float = 10.0) -> Iterator[None]:
        """Reports the progress until the block ends."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(every_s):
                self._progress(self._work.num_done(), self._work.num_shards)

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _log_download_bytes(self) -> None:
        """Logs nothing, for nothing is downloaded."""

    def _log_download_done(self) -> None:
        """Logs nothing."""

    def _as_dataset(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError('ArrayRecord: as_data_source.')


def _nothing_left(report: Mapping[str, Any]) -> str:
    reasons = ', '.join(f'{count} {reason}' for reason, count in report['refused'].items())
    examples = next(iter(report['refused_examples'].values()))
    return (
        f'All of {report["listed"]} clips were refused: {reasons}. '
        f'The first is {examples[0]["id"]}: {examples[0]["reason"]}.'
    )
