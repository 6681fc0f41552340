"""What counts among metrics say of whom the metrics are."""

from __future__ import annotations

from dist_gat.base.metric_counts import is_count, sample_in_words


def test_a_sample_is_told_and_everyone_is_not() -> None:
    assert sample_in_words({"ndcg@20": 0.1, "num_users": 70.0}) == ""
    assert sample_in_words({"num_users": 12_000.0, "num_all_users": 99_000.0}) == " of 12,000 sampled users"
    of_tasks = {"a/auc": 0.7, "a/num_pairs": 9.0, "b/num_users": 5.0, "b/num_all_users": 7.0, "num_users": 1.0}
    assert sample_in_words(of_tasks) == " of 5 sampled users"


def test_counts_are_no_metrics() -> None:
    names = ["ndcg@20", "num_users", "buy/num_pairs", "buy/auc", "num_all_users"]
    assert [name for name in names if not is_count(name)] == ["ndcg@20", "buy/auc"]
