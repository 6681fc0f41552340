"""Functions as Ray tasks, for `prepare` on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dist_gat.base.errors import ClusterError, first_line
from dist_gat.config.sections import LaunchConfig
from dist_gat.launcher.ray import QUIET, ray_cluster, set_defaults


class RayTasks:
    """Each call of a function is a task with one core; at most `num_tasks` of them run at the same time."""

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks = num_tasks

    def __call__(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Raises what the function raises, and `ClusterError` where a task is lost."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        remote = ray.remote(num_cpus=1, max_retries=1)(function)
        pending, found = dict[Any, int](), [None] * len(arguments)
        try:
            for number, own in enumerate(arguments):
                if len(pending) >= self.num_tasks:
                    self._collect(pending, found)
                pending[remote.remote(*own)] = number
            while pending:
                self._collect(pending, found)
        except RayTaskError as err:
            raise err.cause from None
        except RayError as err:
            raise ClusterError(
                f"a task of `prepare` was lost: {first_line(err)}; expected it to reach the folder of data.prepared on "
                "its host, with memory for data.memory_gb / launch.num_workers; try again, or prepare on one host"
            ) from None
        finally:
            for task in pending:
                ray.cancel(task, force=True)
        return found

    def _collect(self, pending: dict[Any, int], found: list[Any]) -> None:
        import ray

        (done, *_), _ = ray.wait(list(pending))
        found[pending.pop(done)] = ray.get(done)


@contextmanager
def ray_tasks(launch: LaunchConfig) -> Iterator[RayTasks]:
    """Tasks on the cluster at `launch.address`, as many at a time as there are workers."""
    set_defaults(QUIET)
    with ray_cluster(launch):
        yield RayTasks(launch.num_workers)
