"""The task that a recipe asks for."""

from __future__ import annotations

from dist_gat.config.sections import Config
from dist_gat.graph.schema import Relation, Schema
from dist_gat.tasks.ranking import build_ranking
from dist_gat.tasks.task import Task


def predicted_relation(schema: Schema) -> Relation:
    """What is predicted: the relation of the recipe's table of interactions."""
    return schema.relations[0]


def build_task(config: Config, schema: Schema) -> Task:
    return build_ranking(config, predicted_relation(schema))
