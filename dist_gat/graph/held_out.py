"""`held_out_warnings`: what `prepare` says where few or no interactions are left to validate or to test with."""

from __future__ import annotations

from collections.abc import Mapping

from dist_gat.config.sections import DataConfig

COLD = "{split} rows of users without a training row"  # the reason in Dataset.dropped


def held_out_warnings(data: DataConfig, counts: Mapping[str, int], dropped: Mapping[str, int]) -> list[str]:
    """Sentences with numbers. counts: interactions of train, valid and test. dropped: rows left out, by reason."""
    split = data.split
    ratios = {"valid": split.valid_ratio, "test": split.test_ratio}
    divides = split.method in ("random", "temporal")
    if divides and not any(ratios.values()) and not counts["valid"] + counts["test"]:
        return [
            f"no validation and no test interactions: data.split.valid_ratio and test_ratio are 0, all "
            f"{counts['train']:,} interactions are for training, and nothing can be measured"
        ]
    reasons = {
        "random": "its ratio of so few interactions is none",
        "temporal": "its ratio of so few interactions is none, or all of them are of one time",
        "leave_last_out": "no user has enough interactions, two for test and three for valid",
        "files": "its file has none",
    }
    warnings = []
    for name in ("valid", "test"):
        left, cold = counts[name], dropped.get(COLD.format(split=name), 0)
        is_meant = ratios[name] > 0 if divides else split.method == "leave_last_out" or bool(getattr(data, name))
        if name == "valid" and split.merge_valid:
            continue
        if cold > left:
            warnings.append(
                f"{name}: {left:,} of {left + cold:,} interactions are left, since the users of the others have no "
                "training interaction; hold out fewer, or split with data.split.method=random or leave_last_out"
            )
        elif not left and is_meant:
            warnings.append(f"{name}: no interaction is left: {reasons[split.method]}")
    return warnings
