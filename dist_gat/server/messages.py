"""What requests and answers look like: their fields, and how large they may be."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

from dist_gat.data.values import MAX_ID_BYTES

MOST_USERS, MOST_NEW_USERS, MOST_NEW_ITEMS, MOST_ITEMS, MOST_K = 1000, 100, 100, 10_000, 1000
MOST_RELATIONS = 100
# users times k, and users times excluded items
MOST_ROWS, MOST_EXCLUDED = 20_000, 1_000_000

Id = StrictInt | Annotated[StrictStr, Field(max_length=MAX_ID_BYTES)]
Items = Annotated[list[Id], Field(max_length=MOST_ITEMS)]
K = Annotated[int, Field(ge=1, le=MOST_K, description="items a user")]


class Body(BaseModel):
    """Base of every request: strict about the names of its fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def check_size(what: str, size: int, most: int) -> None:
    """Raise `ValueError` for more than there may be."""
    if size > most:
        raise ValueError(f"{what} are {size:,}, and may be {most:,}: ask in several requests")


class NewUser(Body):
    """A user whom training never saw: what they have met, the newest last or with times, and what is known of them."""

    user: Id = "new"
    items: Items = []
    weights: Annotated[list[float], Field(max_length=MOST_ITEMS)] | None = None
    times: Annotated[list[float | str], Field(max_length=MOST_ITEMS)] | None = None
    columns: dict[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class NewItem(Body):
    """An item that training never saw: what is known of it, who has met it, and the nodes that it is joined with by the
    names of relations, as {"tags": ["funny"]}."""

    item: Id
    columns: dict[str, Any] | None = None
    users: Items = []
    relations: Annotated[dict[str, Items], Field(max_length=MOST_RELATIONS)] = {}

    def plain(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


NewItems = Annotated[list[NewItem], Field(max_length=MOST_NEW_ITEMS, description="candidates beside the known items")]


class RecommendRequest(Body):
    """Users of the graph by their IDs, or new ones; `candidates`: the only items that are ranked."""

    users: Annotated[list[Id], Field(max_length=MOST_USERS)] = []
    new_users: Annotated[list[NewUser], Field(max_length=MOST_NEW_USERS)] = []
    k: K = 10
    candidates: Items | None = None
    exclude: Items = []
    filter_seen: bool = Field(True, description="leave out what a user has met")
    new_items: NewItems = []

    @model_validator(mode="after")
    def _either(self) -> RecommendRequest:
        if bool(self.users) == bool(self.new_users):
            raise ValueError("give either users or new_users, and at least one")
        num_users = len(self.users) + len(self.new_users)
        check_size("users times k", num_users * self.k, MOST_ROWS)
        check_size("users times excluded items", num_users * len(self.exclude), MOST_EXCLUDED)
        return self


class ScoreRequest(Body):
    """One user, of the graph or new, and the items to be scored."""

    user: Id | None = None
    new_user: NewUser | None = None
    items: Annotated[Items, Field(min_length=1)]
    new_items: NewItems = []

    @model_validator(mode="after")
    def _either(self) -> ScoreRequest:
        if (self.user is None) == (self.new_user is None):
            raise ValueError("give either user or new_user")
        return self


class SimilarRequest(Body):
    """Items that are like items, or users like users, by the cosine of their representations."""

    items: Annotated[list[Id], Field(max_length=MOST_USERS)] = []
    users: Annotated[list[Id], Field(max_length=MOST_USERS)] = []
    k: K = 10

    @model_validator(mode="after")
    def _either(self) -> SimilarRequest:
        if bool(self.users) == bool(self.items):
            raise ValueError("give either items or users, and at least one")
        check_size("items or users times k", (len(self.users) + len(self.items)) * self.k, MOST_ROWS)
        return self


class ExplainRequest(Body):
    """Why an item is recommended to a user; without an item the user's best new one."""

    user: Id
    item: Id | None = None
    top: Annotated[int, Field(ge=1, le=100)] = 10


class RankedItem(BaseModel):
    item_id: int | float | str
    score: float
    rank: int
    title: str | None = None


class UserItems(BaseModel):
    """A user who has met everything has no items."""

    user_id: int | float | str
    items: list[RankedItem]


class RecommendAnswer(BaseModel):
    """model: the digest of the one model that made the whole answer. notes: what was left out, in words."""

    model: str
    recommendations: list[UserItems]
    notes: list[str]


class ScoredItem(BaseModel):
    item_id: int | float | str
    score: float


class ScoreAnswer(BaseModel):
    model: str
    scores: list[ScoredItem]


class SimilarNode(BaseModel):
    id: int | float | str
    cosine: float
    rank: int


class SimilarTo(BaseModel):
    id: int | float | str
    similar: list[SimilarNode]


class SimilarAnswer(BaseModel):
    model: str
    similar: list[SimilarTo]


class ExplainAnswer(BaseModel):
    """explanation: see `dist_gat.explain.explanation.explain_item`."""

    model: str
    explanation: dict[str, Any]


class ReloadAnswer(BaseModel):
    """changed: whether there was another model."""

    model: str
    changed: bool


class Health(BaseModel):
    """trouble: why the newest model of the run could not be opened; then the one before it serves."""

    status: str
    model: str
    trouble: str | None = None
