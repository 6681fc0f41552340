"""Workers placed by Ray Train. Only this module, `ray_tasks`, `submit` and `tuner` import ray.

Ray places the workers and restarts them; they meet in a default process group of their own, and the job
itself knows only torch.distributed.

Everything listens on one address. Left alone, Ray 2.60 turns a loopback address into the host's outward one
and then binds its servers to every interface, and the store at which a process group meets does the same.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dist_gat.base.addresses import is_url
from dist_gat.base.errors import ClusterError, DistGatError, TrainingError, first_line
from dist_gat.base.running_beside import running_beside
from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config, LaunchConfig
from dist_gat.exchange.worker import join_workers
from dist_gat.jobs.job import Job
from dist_gat.launcher.host import cores, keep_freed_memory, threads_per_worker, worker_environment
from dist_gat.launcher.host_watch import HostWatch
from dist_gat.launcher.local import worker_device
from dist_gat.launcher.preload import environment
from dist_gat.launcher.sockets import RAY_SOCKET, short_folder
from dist_gat.launcher.stop_signals import FileRequests, StopFile, on_stop_signals
from dist_gat.train.event_log import PROGRESS_FILE, EventLog

# Ray reads these when it is imported or started: no usage reports, no advice on its own migrations.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
}

# For a cluster that is started for one run. The driver would wait for workers that Ray starts ahead, which a training
# can't use because its workers have an environment of their own. Nobody pre-empts the host.
OWN_CLUSTER = {"RAY_prestart_worker_first_driver": "0", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}

# Actors of Ray Train that a run does without: each is one more process that imports torch while the workers start.
NO_DATASETS, NO_CLEANER = "DatasetsCallback", "PlacementGroupCleanerCallback"

TRAINING_ERROR = "training_error"

# Ray binds to these alone; any other address, 127.0.0.2 too, makes it bind to all interfaces.
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def set_defaults(variables: dict[str, str]) -> None:
    """Set the environment variables that are not set yet."""
    os.environ.update({name: value for name, value in variables.items() if name not in os.environ})


def run_ray(job: Job, config: Config) -> dict[str, Any]:
    """Run a job on `launch.num_workers` Ray workers and return its result.

    Uses the cluster at `launch.address`, or the one that this process already talks to, or starts a local one on
    loopback and stops it afterwards. After a worker was lost, Ray starts the job anew on all workers, at most
    `launch.max_failures` times; a pre-emption does not count.

    A signal to stop reaches the workers as a file in the run folder; a second one ends the run at once. Raises
    `ClusterError` with the worker's message, and `TrainingError` where all stopped at numbers that went wrong.
    """
    set_defaults(QUIET)
    from ray import train
    from ray.train.v2.api.exceptions import TrainingFailedError

    launch = config.launch
    with ray_cluster(launch) as is_own:
        trainer = torch_trainer(is_own)(
            ray_worker,
            train_loop_config={"job": job, "config": config.model_dump(mode="json")},
            torch_config=no_group(),
            scaling_config=train.ScalingConfig(num_workers=launch.num_workers, use_gpu=launch.use_gpu),
            run_config=train.RunConfig(
                name="ray",
                storage_path=str(config.run_folder.resolve()),
                worker_runtime_env={"env_vars": worker_environment(launch)},
                failure_config=train.FailureConfig(max_failures=launch.max_failures),
            ),
        )
        try:
            with watching_hosts(config):
                result = stoppable(trainer.fit, stop_file(config)).return_value
        except TrainingFailedError as err:
            raise ClusterError(failure_message(err)) from None
    if TRAINING_ERROR in result:
        raise TrainingError(result[TRAINING_ERROR])
    return result


@contextmanager
def watching_hosts(config: Config) -> Iterator[None]:
    """While the block runs, add to the events of the run which hosts the cluster loses and gets, and for what it
    waits."""
    events = config.run_folder / PROGRESS_FILE
    with EventLog(config.run_folder, rank=0) as log:
        before = events.stat().st_size
        watch = HostWatch(
            lambda: room_of_hosts(config.launch),
            config.launch.num_workers,
            lambda text: log.event("told", message=text),
            lambda: has_events(events, before),
        )
        with running_beside(watch.until):
            yield


def has_events(path: Path, offset: int) -> bool:
    """Whether the workers added an event behind so many bytes of a run's events."""
    with path.open("rb") as file:
        file.seek(offset)
        return any(b'"event": "told"' not in line for line in file)


def room_of_hosts(launch: LaunchConfig) -> dict[str, int]:
    """How many workers each living host could have, by its address."""
    import ray

    resource = "GPU" if launch.use_gpu else "CPU"
    living = [node for node in ray.nodes() if node["Alive"]]
    return {node["NodeManagerAddress"]: int(node["Resources"].get(resource, 0)) for node in living}


def stop_file(config: Config) -> StopFile:
    return StopFile(config.run_folder, config.run if is_url(config.run) else None)


def stoppable(fit: Callable[[], Any], file: StopFile) -> Any:
    """What `fit` returns. It runs in a thread, because in the main one Ray would take SIGINT for itself."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(fit())
        except BaseException as err:
            future.set_exception(err)

    def stop() -> None:
        if file.path.exists():
            raise KeyboardInterrupt
        file.touch()

    file.remove()
    try:
        with on_stop_signals(stop):
            threading.Thread(target=run, name="ray train", daemon=True).start()
            return future.result()
    finally:
        file.remove()


def ray_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """What every Ray worker runs: meet the others and do the job; Ray hands on what rank 0 returns."""
    from ray import train

    keep_freed_memory()
    config = parse_config(settings["config"])
    device = worker_device(config, train.get_context().get_local_rank())
    try:
        meet(config.launch)
        requests = FileRequests(stop_file(config), is_preempted)
        threads, shares = threads_per_worker(config.launch), config.sampling.access == "auto"
        worker = join_workers(device, threads, config.launch.timeout_s, requests, shares)
        return settings["job"](config, worker)
    except TrainingError as err:
        # returned, not raised: Ray starts anew after an error, and the same numbers would come again
        return {TRAINING_ERROR: str(err)}
    except DistGatError as err:
        raise RuntimeError(f"{type(err).__name__}: {err}") from None


def is_preempted() -> bool:
    """Whether Ray said that a node of this run is about to go; Ray's public function for it waits for all ranks."""
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def torch_trainer(is_own: bool) -> Any:
    """Ray's TorchTrainer without actors that a run of ours has no use for.

    One actor hands out Ray Datasets, which we don't use. The other frees the workers' placement group where the driver
    is killed; a cluster of our own (`is_own`) ends with the driver anyway.
    """
    from ray.train.torch import TorchTrainer

    unused = {NO_DATASETS, NO_CLEANER} if is_own else {NO_DATASETS}

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [x for x in super()._create_default_callbacks() if type(x).__name__ not in unused]

    return Trainer


def no_group() -> Any:
    """Ray's torch backend without its process group, whose store listens on every interface.

    What remains is that a worker sees all GPUs of its host, and that Ray ends the group.
    """
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    class NoGroupBackend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            pass

    class NoGroupConfig(TorchConfig):
        backend_cls = NoGroupBackend

    return NoGroupConfig()


def meet(launch: LaunchConfig) -> None:
    """Form the default process group at a store that listens on the address of rank 0's Ray node alone.

    Raises `ClusterError` where the workers are on several hosts and `launch.interface` is loopback.
    """
    import ray
    from ray import train
    from ray.train.collective import broadcast_from_rank_zero

    rank, world_size = train.get_context().get_world_rank(), train.get_context().get_world_size()
    here = ray.util.get_node_ip_address()
    listener = socket.create_server((here, 0), family=family_of(here)) if rank == 0 else None
    host, port = broadcast_from_rank_zero((here, listener.getsockname()[1]) if listener else None)
    if host != here and launch.interface == "lo":
        raise ClusterError(
            f"rank {rank} is on {here} and rank 0 on {host}, but launch.interface=lo reaches one host alone; set "
            "launch.interface to the network interface between the hosts, for example launch.interface=eth0"
        )
    timeout = timedelta(seconds=launch.timeout_s)
    store = dist.TCPStore(
        host, port, world_size, rank == 0, timeout, master_listen_fd=listener.detach() if listener else None
    )  # fmt: skip
    backend = "nccl" if launch.use_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextmanager
def ray_cluster(launch: LaunchConfig) -> Iterator[bool]:
    """Connect to Ray. Yields whether it is a local cluster that was started here, which ends with the block."""
    import ray

    if ray.is_initialized():
        yield False
        return
    is_own = launch.address is None
    with environment({name: os.environ.get(name, value) for name, value in OWN_CLUSTER.items()} if is_own else {}):
        if launch.address is None:
            start_local(launch)
        else:
            connect(launch.address)
        try:
            yield is_own
        finally:
            ray.shutdown()


def connect(address: str) -> None:
    """Connect to a running cluster. Raises `ClusterError` where there is none, or where it does not let us in."""
    import ray
    from ray.exceptions import RayError

    try:
        with loopback_allowed():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (RayError, ConnectionError, RuntimeError, TimeoutError, ValueError) as err:
        # Ray does not tell a wrong token from a wrong address
        reason = first_line(err).rstrip(".")
        raise ClusterError(
            f"launch.address={address}: can't connect to a Ray cluster: {reason}; expected a cluster started as "
            "launch/README.md says, and its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with it"
        ) from None


def start_local(launch: LaunchConfig) -> None:
    """Start a cluster on this host, which listens on `launch.host` alone where that is loopback.

    Raises `ClusterError` where Ray does not start, or would listen elsewhere.
    """
    import ray
    from ray._common.utils import get_default_ray_temp_dir

    on_loopback = launch.host in LOOPBACK
    folder = get_default_ray_temp_dir()
    if short := short_folder(os.path.dirname(folder), RAY_SOCKET):
        folder = os.path.join(short, "ray")
    try:
        with loopback_allowed() if on_loopback else nullcontext():
            # "local", because without an address Ray would follow RAY_ADDRESS
            ray.init(
                address="local",
                num_cpus=max(cores(), launch.num_workers),
                include_dashboard=False,
                _node_ip_address=launch.host,
                _temp_dir=folder,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    # Ray raises a plain Exception for a node that is too slow to start
    except Exception as err:
        reason = first_line(err).rstrip(".")
        raise ClusterError(
            f"Ray did not start on this host: {reason}; expected it to within a minute or so. Its own words are in "
            f"{folder}/session_latest/logs; try again when the host is less busy, or set launch.launcher=local"
        ) from err
    node = ray.util.get_node_ip_address()
    if on_loopback and node not in LOOPBACK:
        ray.shutdown()
        raise ClusterError(
            f"launch.host={launch.host}, but this release of Ray listens on {node} and all interfaces; set "
            "launch.launcher=local, or launch.host to the address of this host if its network is trusted"
        )


@contextmanager
def loopback_allowed() -> Iterator[None]:
    """While the block runs, Ray takes a loopback address as it is, as it does by itself on macOS and Windows.

    Otherwise Ray puts the host's outward address in its place. The variable is read at Ray's import, here and
    in the processes that Ray starts.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        with environment({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def ray_health() -> str:
    """Start a local cluster on loopback, run one task there and stop it; returns the address of its node."""
    set_defaults(QUIET)
    import ray

    def where() -> str:
        return ray.util.get_node_ip_address()

    with ray_cluster(LaunchConfig(num_workers=1)):
        return ray.get(ray.remote(where).remote(), timeout=60)


def failure_message(err: Exception) -> str:
    """The workers' own messages out of Ray Train's error."""
    failures = getattr(err, "worker_failures", None) or {}
    if not failures:
        return f"Ray Train failed: {err}"
    rank, cause = sorted(failures.items())[0]
    return f"rank {rank} failed: {cause}"
