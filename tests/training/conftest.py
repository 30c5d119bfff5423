"""A regression that trains in milliseconds, for the tests of loop, step and buckets."""

import dataclasses
import threading
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmavil_jax.config.training import CheckpointConfig, OptimizerConfig, TrainConfig
from diffmavil_jax.plan.buckets import Bucket, Plan
from diffmavil_jax.storage.run_files import InPlace
from diffmavil_jax.training import loop
from diffmavil_jax.training.cadence import Cadence
from diffmavil_jax.training.checkpoint import CheckpointStore
from diffmavil_jax.training.compiled_steps import CompiledSteps
from diffmavil_jax.training.interfaces import Timings
from diffmavil_jax.training.metrics import MetricsWriter
from diffmavil_jax.training.optimizer import learning_rate, make_optimizer
from diffmavil_jax.training.state import TrainState
from diffmavil_jax.training.step import make_step

FEATURES = 6
OPTIMIZER = OptimizerConfig(learning_rate=0.05, warmup_samples=16, weight_decay=0.01)


def bucket(first: int, steps: int, batch_size: int, ratio: float) -> Bucket:
    return Bucket(first, first + steps * batch_size, ratio, 1, 1, batch_size, steps, 1, 1, 1)


def toy_loss(params, batch):
    """Least squares; the row of a clip is a function of its position, as everything random is."""
    error = (batch['x'] @ params['kernel'] + params['bias'] - batch['y']) ** 2
    count = jnp.float32(error.shape[0])
    return error.mean(), {'loss': (error.sum(), count), 'audio': (error.sum(), count)}


@dataclasses.dataclass
class Toy:
    """Two buckets of three steps: 3 x 16 clips, then 3 x 8; total 72."""

    plan: Plan = Plan((bucket(0, 3, 16, 0.9), bucket(48, 3, 8, 0.8)), 1, 'a test')
    nonfinite: frozenset[int] = frozenset()  # positions whose target is NaN

    def __post_init__(self):
        self.optimizer = make_optimizer(OPTIMIZER)
        self.served: list[tuple[int, int]] = []  # position of the first clip, size

    def init(self) -> TrainState:
        params = {'kernel': jnp.full((FEATURES,), 0.5), 'bias': jnp.zeros(())}
        return TrainState(params, self.optimizer.init(params), jnp.zeros((), jnp.int32))

    def abstract(self) -> TrainState:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), jax.eval_shape(self.init)
        )

    def step(self, batch_size: int, loss_function=toy_loss) -> Callable[..., Any]:
        rate = learning_rate(OPTIMIZER, self.plan.total_samples)
        return make_step(loss_function, self.optimizer, rate, batch_size)

    def batch(self, first: int, size: int) -> dict[str, jax.Array]:
        rows = [
            np.random.default_rng(p).standard_normal(FEATURES).astype(np.float32)
            for p in range(first, first + size)
        ]
        x = np.stack(rows)
        y = x @ np.arange(FEATURES, dtype=np.float32) + 1
        y[[p in self.nonfinite for p in range(first, first + size)]] = np.nan
        return {'x': jnp.asarray(x), 'y': jnp.asarray(y)}

    def batches(self, first: int):
        for size in self.plan.batch_sizes_from(first):
            self.served.append((first, size))
            yield self.batch(first, size), [f'clip {p}' for p in range(first, first + size)]
            first += size

    def lower(self, index: int) -> jax.stages.Lowered:
        size = self.plan.buckets[index].batch_size
        batch = jax.eval_shape(lambda: self.batch(0, size))
        return jax.jit(self.step(size), donate_argnums=0).lower(self.abstract(), batch)

    def steps(self) -> CompiledSteps:
        return CompiledSteps(self.lower, len(self.plan.buckets))

    def run(
        self,
        workdir,
        *,
        stop_after: int | None = None,
        evaluate=lambda params: {'bias': float(params['bias'])},
        log_every=8,
        save_every=1_000,
        evaluate_every=1_000,
        max_nonfinite=3,
        profile_steps='',
    ) -> tuple[TrainState, Timings]:
        """One start in a directory: resumes what is there, stops before step `stop_after`."""
        store = CheckpointStore(workdir / 'checkpoints', keep_latest=9, keep_best=0, best_metric=None)
        writer = MetricsWriter(workdir)
        try:
            restored = store.restore(self.abstract())
            state, metadata = restored or (self.init(), {'timings': {}})
            timings = Timings(**metadata['timings'])
            first = len(self.served)

            def told() -> bool:
                return stop_after is not None and len(self.served) - first >= stop_after

            stop = types.SimpleNamespace(is_set=told, before_step=told, wait_for=lambda get: get())
            files = InPlace(workdir)
            setup = loop.Setup(self.plan, self.steps(), self.batches, evaluate, store, writer, files, stop)
            cadence = Cadence(
                TrainConfig(
                    samples=72,
                    log_every_samples=log_every,
                    max_nonfinite_steps=max_nonfinite,
                    profile_steps=profile_steps,
                ),
                CheckpointConfig(every_samples=save_every, every_minutes=60.0),
                evaluate_every,
            )
            return loop.train(state, setup, cadence, timings), timings
        finally:
            writer.close()
            store.close()
            for thread in threading.enumerate():
                if thread.name == 'compile':  # of a run that ended early; a later test counts compilations
                    thread.join()


@pytest.fixture(scope='session')
def make_toy():
    return Toy
