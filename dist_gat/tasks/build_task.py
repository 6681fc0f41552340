"""The task that a recipe asks for."""

from __future__ import annotations

from dataclasses import replace

from dist_gat.base.errors import DataError
from dist_gat.config.sections import Config
from dist_gat.config.task_sections import RankingTask as RankingSection
from dist_gat.config.task_sections import ReconstructTask as ReconstructSection
from dist_gat.config.task_sections import SingleTask, TaskConfig
from dist_gat.config.task_sections import TogetherTask as TogetherSection
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import Relation, Schema
from dist_gat.tasks.pair_task import ALONE, PairTask, build_pair_task
from dist_gat.tasks.private_ranking import build_private_ranking
from dist_gat.tasks.ranking import RankingTask, build_ranking
from dist_gat.tasks.reconstruct import ReconstructTask, build_reconstruct
from dist_gat.tasks.together import TogetherTask


def predicted_relation(schema: Schema, task: TaskConfig) -> Relation:
    """What a task predicts; several together: what the first of them does. Raises `DataError`."""
    if isinstance(task, TogetherSection):
        return predicted_relation(schema, next(iter(task.tasks.values())))
    found = [relation for relation in schema.relations if relation.name == task.relation]
    if not found:
        raise DataError(
            f"task.relation={task.relation}: the prepared data set has {', '.join(r.name for r in schema.relations)}; "
            "run `dist-gat prepare` with this configuration"
        )
    return found[0]


AnyTask = RankingTask | PairTask | ReconstructTask | TogetherTask


def build_task(config: Config, prepared: PreparedGraph) -> AnyTask:
    """Raises `DataError` where the data set has not what the task predicts."""
    if isinstance(config.task, TogetherSection):
        return build_together(config.task, config, prepared)
    if isinstance(config.task, ReconstructSection):
        return build_reconstruct(config.task, config, prepared)
    if config.privacy is not None:
        return build_private_ranking(config, predicted_relation(prepared.schema, config.task))
    return build_single(ALONE, config.task, config, prepared)


def build_single(name: str, task: SingleTask, config: Config, prepared: PreparedGraph) -> RankingTask | PairTask:
    relation = predicted_relation(prepared.schema, task)
    if isinstance(task, RankingSection):
        return build_ranking(config, relation)
    return build_pair_task(name, task, config, relation, prepared)


def build_together(together: TogetherSection, config: Config, prepared: PreparedGraph) -> TogetherTask:
    tasks: dict[str, RankingTask | PairTask] = {}
    for name, section in together.tasks.items():
        task = build_single(name, section, config, prepared)
        if together.heads == "chain" and isinstance(task, PairTask):
            task = replace(task, needs=tuple(tasks))
        tasks[name] = task
    return TogetherTask(tasks, together, prepared.ranges, config.train.metric, config.higher_is_better)


def single_tasks(task: AnyTask) -> dict[str, RankingTask | PairTask]:
    """The tasks in a task that are measured, by name; one that stands alone is `ALONE`."""
    if isinstance(task, ReconstructTask):
        return {ALONE: task.first}
    return dict(task.of) if isinstance(task, TogetherTask) else {ALONE: task}
