"""One entry point for every way to start workers."""

from __future__ import annotations

from typing import Any

from dist_gat.base.addresses import absolute, is_url
from dist_gat.config.sections import Config
from dist_gat.jobs.job import Job
from dist_gat.launcher.local import run_local
from dist_gat.launcher.progress import show_progress
from dist_gat.launcher.ray import run_ray
from dist_gat.train.event_log import PROGRESS_FILE


def run_job(job: Job, config: Config, quiet: bool = False) -> dict[str, Any]:
    """Start the workers that `config.launch` asks for, run `job` on each, and return its result.

    Raises `ClusterError` where a worker fails.
    """
    config = with_absolute_paths(config)
    config.run_folder.mkdir(parents=True, exist_ok=True)
    with show_progress(config.run_folder / PROGRESS_FILE, quiet):
        return run_ray(job, config) if config.launch.launcher == "ray" else run_local(job, config)


def with_absolute_paths(config: Config) -> Config:
    """The configuration with its folders resolved here: workers start in other folders."""
    names = {"path": absolute(config.data.path), "prepared": absolute(config.data.prepared)}
    run = config.run if is_url(config.run) else absolute(config.run_folder)
    return config.model_copy(update={"data": config.data.model_copy(update=names), "run": run})
