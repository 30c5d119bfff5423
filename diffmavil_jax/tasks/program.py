"""A task as a program: its state, its step for each bucket, and its batches on the mesh."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.pipeline import Loader
from diffmavil_jax.data.take import Takes
from diffmavil_jax.objectives.pretraining import TokenCounts
from diffmavil_jax.parallel import hosts
from diffmavil_jax.parallel.mesh import batch_sharding, constrained
from diffmavil_jax.plan.buckets import Bucket, Plan, learning_rate_scale
from diffmavil_jax.tasks.task import Task
from diffmavil_jax.training.optimizer import learning_rate
from diffmavil_jax.training.state import TrainState, born
from diffmavil_jax.training.step import make_step

# From samples seen to the batches that follow, on the mesh, each with the names of its clips.
Batches = Callable[[int], Iterator[tuple[dict[str, jax.Array], list[str]]]]


@dataclasses.dataclass(frozen=True)
class Program:
    """The state and the steps of a run.

    Attributes:
        abstract: shapes and shardings of the state.
        init: makes the initial state.
        init_params: makes its trained parameters alone.
        trace: from the index of a bucket to its traced step.
    """

    abstract: TrainState
    init: Callable[[], TrainState]
    init_params: Callable[[], Any]
    trace: Callable[[int], jax.stages.Traced]

    def lower(self, index: int) -> jax.stages.Lowered:
        """The lowered step of a bucket."""
        return self.trace(index).lower()


def make_program(config: Config, task: Task, plan: Plan, mesh: jax.sharding.Mesh) -> Program:
    """Objective and optimizer as steps of all buckets; the devices of the mesh need not be attached."""
    schedule = learning_rate(config.optimizer, plan.total_samples)

    def init_params(key: jax.Array) -> tuple[Any, Any]:
        batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in abstract_batch(task, mesh, 1).items()}
        variables = task.objective.init(key, batch, token_counts(plan.buckets[0]))
        return variables['params'], variables.get('frozen')

    made = born(init_params, task.optimizer, mesh, keep_ema=task.keep_ema)
    abstract = made.abstract

    def trace(index: int) -> jax.stages.Traced:
        bucket = plan.buckets[index]
        counts, scale = token_counts(bucket), learning_rate_scale(bucket.batch_size, config)
        step = make_step(
            functools.partial(task.objective.loss, counts=counts),
            task.optimizer,
            lambda samples: scale * schedule(samples),
            bucket.batch_size,
            microbatches=config.batch.microbatches,
            ema_decay=config.finetune.ema_decay,
        )
        # Pinned: otherwise XLA may choose another layout than the next step expects.
        layout = (jax.tree.map(lambda leaf: leaf.sharding, abstract), None)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=layout)
        with constrained(mesh):
            return jitted.trace(abstract, abstract_batch(task, mesh, bucket.batch_size))

    return Program(
        abstract,
        init=lambda: made.state(jax.random.key(config.seed)),
        init_params=lambda: made.params(jax.random.key(config.seed))[0],
        trace=trace,
    )


def make_batches(config: Config, task: Task, plan: Plan, mesh: jax.sharding.Mesh) -> Batches:
    """Reads this process's part of the batches."""
    host, count = hosts.share_of_batch(mesh)
    loader = Loader(
        task.source,
        seed=config.seed,
        takes=Takes.of(config),
        threads=config.data.threads,
        workers=config.data.workers,
        prefetch_batches=config.data.prefetch_batches,
        largest_batch=max(bucket.batch_size for bucket in plan.buckets),
        host=host,
        hosts=count,
    )

    def batches(first_sample: int) -> Iterator[tuple[dict[str, jax.Array], list[str]]]:
        host_batches = loader.batches(first_sample, plan.batch_sizes_from(first_sample))
        return ((hosts.put_batch(batch, mesh), ids) for batch, ids in host_batches)

    return batches


def abstract_batch(task: Task, mesh: jax.sharding.Mesh, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of a batch on the mesh."""
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=batch_sharding(mesh))
        for name, (shape, dtype) in task.batch.items()
    }


def token_counts(bucket: Bucket) -> dict[str, TokenCounts]:
    """How many tokens of each modality are visible and decoded in a bucket."""
    return {
        'audio': TokenCounts(bucket.audio_tokens, bucket.audio_decoded),
        'video': TokenCounts(bucket.video_tokens, bucket.video_decoded),
    }
