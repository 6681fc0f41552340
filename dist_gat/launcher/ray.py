"""Workers placed by Ray Train. The only module that imports ray.

Ray starts the workers and their default process group; the job itself knows only torch.distributed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dist_gat.config import Config, LaunchConfig, parse_config
from dist_gat.errors import ClusterError, DistGatError
from dist_gat.exchange.worker import join_workers
from dist_gat.launcher.host import cores, keep_freed_memory, threads_per_worker, worker_environment
from dist_gat.launcher.job import Job
from dist_gat.launcher.local import worker_device

# Ray reads these when it is imported or started: no usage reports, no advice on its own migrations.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
}


def run_ray(job: Job, config: Config) -> dict[str, Any]:
    """Run a job on `launch.num_workers` Ray workers and return its result.

    Uses the cluster at `launch.address`, or the one that this process already talks to, or starts a local
    one on loopback and stops it afterwards. Raises `ClusterError` with the worker's message.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    launch = config.launch
    with ray_cluster(launch):
        trainer = TorchTrainer(
            ray_worker,
            train_loop_config={"job": job, "config": config.model_dump(mode="json")},
            torch_config=TorchConfig(backend="nccl" if launch.use_gpu else "gloo", timeout_s=launch.timeout_s),
            scaling_config=train.ScalingConfig(num_workers=launch.num_workers, use_gpu=launch.use_gpu),
            run_config=train.RunConfig(
                name="ray",
                storage_path=str(config.run_folder.resolve()),
                worker_runtime_env={"env_vars": worker_environment(launch)},
            ),
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as err:
            raise ClusterError(failure_message(err)) from None
    return result.return_value


def ray_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """What every Ray worker runs: join the others and do the job; Ray hands on what rank 0 returns."""
    from ray import train

    keep_freed_memory()
    config = parse_config(settings["config"])
    device = worker_device(config, train.get_context().get_local_rank())
    worker = join_workers(device, threads_per_worker(config.launch), config.launch.timeout_s)
    try:
        return settings["job"](config, worker)
    except DistGatError as err:
        raise RuntimeError(f"{type(err).__name__}: {err}") from None


@contextmanager
def ray_cluster(launch: LaunchConfig) -> Iterator[None]:
    """Connect to Ray; a local cluster that was started here ends here."""
    import ray

    if ray.is_initialized():
        yield
        return
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if launch.address is not None:
        ray.init(address=launch.address, **quiet)
    else:
        ray.init(
            num_cpus=max(cores(), launch.num_workers),
            include_dashboard=False,
            _node_ip_address=launch.host,
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()


def failure_message(err: Exception) -> str:
    """The workers' own messages out of Ray Train's error."""
    failures = getattr(err, "worker_failures", None) or {}
    if not failures:
        return f"Ray Train failed: {err}"
    rank, cause = sorted(failures.items())[0]
    return f"rank {rank} failed: {cause}"
