"""Counts that stand among metrics, and what they say of whom the metrics are."""

from __future__ import annotations

from collections.abc import Mapping

# beside `num_users`, where these are a sample: how many there are in all
ALL_USERS = "num_all_users"


def is_count(name: str) -> bool:
    """Whether an entry among metrics counts users or pairs; of several tasks, their names stand first."""
    return name.rpartition("/")[2].startswith("num_")


def sample_in_words(metrics: Mapping[str, float]) -> str:
    """` of 10,000 sampled users`, where metrics are of a sample of the users; nothing otherwise."""
    for name in metrics:
        task, slash, key = name.rpartition("/")
        if key == ALL_USERS:
            return f" of {metrics[f'{task}{slash}num_users']:,.0f} sampled users"
    return ""
