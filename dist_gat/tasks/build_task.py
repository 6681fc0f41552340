"""The task that a recipe asks for."""

from __future__ import annotations

from dist_gat.config.sections import Config
from dist_gat.graph.part import PreparedGraph
from dist_gat.graph.schema import Relation, Schema
from dist_gat.tasks.pair_task import PairTask, build_pair_task
from dist_gat.tasks.ranking import RankingTask, build_ranking


def predicted_relation(schema: Schema) -> Relation:
    """What is predicted: the relation of the recipe's table of interactions."""
    return schema.relations[0]


def build_task(config: Config, prepared: PreparedGraph) -> RankingTask | PairTask:
    """Raises `DataError` where the data set has not what the task predicts."""
    relation = predicted_relation(prepared.schema)
    if config.task.kind == "ranking":
        return build_ranking(config, relation)
    return build_pair_task(config, relation, prepared)
