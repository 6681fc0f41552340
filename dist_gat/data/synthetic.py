"""A small data set with planted communities, for trials without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from dist_gat.base.errors import ConfigError

POPULARITY_EXPONENT = 1.0  # an item of rank r in its community is drawn in proportion to r ** -exponent
FIRST_SECOND = 1_600_000_000  # 2020-09-13
NUM_SECONDS = 365 * 24 * 3600


def write_synthetic(
    folder: Path,
    num_users: int,
    num_items: int,
    num_communities: int,
    interactions_per_user: int,
    noise: float,
    seed: int,
) -> Path:
    """Write interactions.csv (user_id, item_id, timestamp) and items.csv (item_id, title) and return the folder.

    User u and item i belong to communities u % num_communities and i % num_communities. A user has
    `interactions_per_user` distinct items: mostly of its community, by a power law of popularity; each with
    probability `noise` of another one, uniformly. Times are whole seconds within one year, at random. The same
    arguments give the same files. Raises `ConfigError` for counts that don't fit together.
    """
    _check(num_users, num_items, num_communities, interactions_per_user, noise)
    rng = np.random.default_rng(seed)
    community = np.arange(num_items) % num_communities
    log_weight = -POPULARITY_EXPONENT * np.log(np.arange(num_items) // num_communities + 1)
    items = np.empty((num_users, interactions_per_user), dtype=np.int64)
    for user in range(num_users):
        inside = community == user % num_communities
        num_noisy = int((rng.random(interactions_per_user) < noise).sum())
        # the largest of log weight + Gumbel noise are a weighted draw without replacement
        gumbel = -np.log(-np.log(rng.random(num_items)))
        own = np.argsort(np.where(inside, -(log_weight + gumbel), np.inf))[: interactions_per_user - num_noisy]
        others = np.argsort(np.where(inside, np.inf, -gumbel))[:num_noisy]
        items[user] = np.sort(np.concatenate([own, others]))
    times = FIRST_SECOND + (rng.random(items.size) * NUM_SECONDS).astype(np.int64)

    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in np.repeat(np.arange(num_users), interactions_per_user)],
            "item_id": [f"i{item}" for item in items.ravel()],
            "timestamp": times,
        }
    ).write_csv(folder / "interactions.csv")
    pl.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(num_items)],
            "title": [f"Item {item} of community {item % num_communities}" for item in range(num_items)],
        }
    ).write_csv(folder / "items.csv")
    return folder


def _check(num_users: int, num_items: int, num_communities: int, interactions_per_user: int, noise: float) -> None:
    if min(num_users, num_communities, interactions_per_user) < 1:
        raise ConfigError("synthetic data: the numbers of users, communities and interactions must be positive")
    if not 0.0 <= noise <= 1.0:
        raise ConfigError(f"synthetic data: noise={noise} is a probability; expected 0 to 1")
    smallest = num_items // num_communities
    if interactions_per_user > smallest:
        raise ConfigError(
            f"synthetic data: a user can't have {interactions_per_user} distinct items of a community of {smallest}; "
            "take more items, fewer communities or fewer interactions"
        )
    if noise > 0 and num_communities == 1:
        raise ConfigError("synthetic data: with one community there is no other to draw noise from; set noise to 0")
