"""The page of one explanation: a picture of the paths from the user to the item, fidelity, and the weights."""

from __future__ import annotations

from typing import Any

from dist_gat.pages.page import fill_template

# the columns of the picture: the user, its interactions, other users, the item
COLUMN, BOX_WIDTH, BOX_HEIGHT, ROW = 265, 165, 26, 36
MAX_ROWS = 12
MAX_LABEL = 22


def explanation_page(explanation: dict[str, Any]) -> str:
    """HTML of what `dist_gat.explain.explanation.explain_item` returns."""
    interactions, others = explanation["interactions"], explanation["others"]
    layers = (interactions or others)[0]["layers"]
    heads = [(layer, head) for layer in range(len(layers)) for head in range(len(layers[0]))]
    return fill_template(
        "explanation.html", explanation=explanation, columns=columns_of(interactions), other_columns=columns_of(others),
        heads=heads if len(heads) > 1 else [], picture=draw_paths(explanation),
    )  # fmt: skip


def columns_of(edges: list[dict[str, Any]]) -> dict[str, bool]:
    """Which columns a table of edges needs beside those that all have."""
    return {name: any(edge.get(name) for edge in edges) for name in ("value", "rank", "behind")}


def draw_paths(explanation: dict[str, Any]) -> dict[str, Any]:
    """Boxes and links of the picture, in its coordinates. A link's `share` is its weight over its column's largest."""
    user, item = explanation["user"]["user_id"], explanation["item"]
    interactions = explanation["interactions"][:MAX_ROWS]
    item_users = explanation["item_users"][:MAX_ROWS]
    links_behind = [
        (entry["item_id"], person) for entry in interactions for person in entry["behind"] if person["user_id"] != user
    ]
    # users on both sides make whole paths, so those of the item come first
    people = list(dict.fromkeys([p["user_id"] for p in item_users] + [p["user_id"] for _, p in links_behind]))
    people = [person for person in people if person != user][:MAX_ROWS]
    height = ROW * max(len(interactions), len(people), 1)
    columns: list[list[tuple[Any, str]]] = [
        [(user, f"user {user}")],
        [(entry["item_id"], label(entry)) for entry in interactions],
        [(person, f"user {person}") for person in people],
        [(item["item_id"], label(item))],
    ]
    shown = [number for number, column in enumerate(columns) if column]
    place: dict[tuple[int, Any], tuple[float, float]] = {
        (number, key): (shown.index(number) * COLUMN, height * (row + 0.5) / len(column))
        for number, column in enumerate(columns)
        for row, (key, _) in enumerate(column)
    }
    links = [
        *_links(place, 0, [(user, entry["item_id"], entry["weight"]) for entry in interactions]),
        *_links(place, 1, [(source, person["user_id"], person["weight"]) for source, person in links_behind]),
        *_links(place, 2, [(person["user_id"], item["item_id"], person["weight"]) for person in item_users]),
    ]
    boxes = [
        {"x": place[number, key][0], "y": place[number, key][1] - BOX_HEIGHT / 2, "column": number, "full": text,
         "label": text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"}
        for number, column in enumerate(columns)
        for key, text in column
    ]  # fmt: skip
    return {
        "width": (len(shown) - 1) * COLUMN + BOX_WIDTH, "height": height, "boxes": boxes, "links": links,
        "box_width": BOX_WIDTH, "box_height": BOX_HEIGHT, "has_people": bool(people),
    }  # fmt: skip


def label(item: dict[str, Any]) -> str:
    """An item's title, or else its ID."""
    return str(item["title"]) if item.get("title") else f"item {item['item_id']}"


def _links(
    place: dict[tuple[int, Any], tuple[float, float]], column: int, ends: list[tuple[Any, Any, float]]
) -> list[dict[str, Any]]:
    """Links from a column to the next, between ends that are in the picture; `share` ignores the sign of a weight."""
    shown = [
        (*place[column, left], *place[column + 1, right], weight)
        for left, right, weight in ends
        if (column, left) in place and (column + 1, right) in place
    ]
    largest = max((abs(weight) for *_, weight in shown), default=0.0) or 1.0
    return [
        {"x1": x1 + BOX_WIDTH, "y1": y1, "x2": x2, "y2": y2, "weight": weight, "share": abs(weight) / largest}
        for x1, y1, x2, y2, weight in shown
    ]
