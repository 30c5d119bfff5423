"""What is used of Orbax and JAX that they call private: it is there, in versions that were tried."""

import importlib.metadata
import inspect
import pathlib

import orbax.checkpoint as ocp
from jax._src import distributed
from jax._src.clusters import ClusterEnv
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parents[2]


def allowed(package):
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    [found] = [line for line in lines if line.startswith(f'{package}>')]
    return Requirement(found.split('#')[0]).specifier


def test_the_versions_were_tried():
    # Before a bound is raised, the tests below and those of tests/parallel have to pass with that version.
    assert str(allowed('orbax-checkpoint')) == '<0.13,>=0.12'
    assert importlib.metadata.version('orbax-checkpoint') in allowed('orbax-checkpoint')


def test_orbax_waits_for_its_checkpointers_and_lets_others_say_where_processes_meet():
    wait = ocp.CheckpointManager._wait_for_checkpointers
    assert list(inspect.signature(wait).parameters) == ['self']
    assert {'key', 'timeout_ms'} == set(
        inspect.signature(ocp.multihost.BarrierSyncFn.__call__).parameters
    ) - {'self'}
    options = inspect.signature(ocp.options.AsyncOptions).parameters
    assert {'timeout_secs', 'barrier_sync_fn'} <= set(options)


def test_jax_finds_clusters_and_lets_processes_exchange_texts():
    found = list(inspect.signature(ClusterEnv.auto_detect_unset_distributed_params).parameters)
    assert found == [
        'coordinator_address', 'num_processes', 'process_id', 'local_device_ids', 'cluster_detection_method',
        'initialization_timeout',
    ]  # fmt: skip
    assert distributed.global_state.client is None  # set where there are several processes
