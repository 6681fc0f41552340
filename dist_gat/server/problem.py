"""`Problem`: what is wrong with a request, in words that its sender can act on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from dist_gat.base.errors import ConfigError, DataError, DistGatError, UnknownIdError

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TIMEOUT = 400, 401, 403, 404, 408
TOO_LARGE, UNPROCESSABLE, TOO_MANY, BROKEN, UNAVAILABLE = 413, 422, 429, 500, 503
EXPECTED = "expected"


@dataclass
class Problem(Exception):
    """status: of HTTP. headers: further ones of the answer."""

    status: int
    what: str
    expected: str | None
    remedy: str
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> JSONResponse:
        told = {"what": self.what, "expected": self.expected, "remedy": self.remedy}
        return JSONResponse({"error": told}, self.status, self.headers)


def problem_of(error: DistGatError) -> Problem:
    """An error of ours says what, and behind a semicolon what was expected and what to do."""
    statuses = {UnknownIdError: NOT_FOUND, DataError: UNPROCESSABLE, ConfigError: UNPROCESSABLE}
    status = next((code for kind, code in statuses.items() if isinstance(error, kind)), UNAVAILABLE)
    what, *rest = str(error).split("; ")
    expected = next((clause for clause in rest if clause.startswith(EXPECTED)), None)
    remedy = "; ".join(clause for clause in rest if clause != expected)
    if expected is None and f": {EXPECTED} " in what:
        what, _, expected = what.partition(f": {EXPECTED} ")
    return Problem(status, what, expected and expected.removeprefix(EXPECTED).strip(), remedy or "change the request")


def problem_of_fields(errors: Sequence[dict[str, Any]]) -> Problem:
    """Of what pydantic says of a body."""
    first = errors[0]
    place = ".".join(str(step) for step in first["loc"] if step != "body") or "the body"
    if first["type"] == "json_invalid":
        return not_json(first.get("ctx", {}).get("error", first["msg"]))
    more = f", and {len(errors) - 1} more like this" if len(errors) > 1 else ""
    return Problem(UNPROCESSABLE, f"{place}: {first['msg']}{more}", "a body as in /docs", f"change or remove {place}")


def not_json(reason: str) -> Problem:
    return Problem(BAD_REQUEST, f"the body is no valid JSON: {reason}", "a JSON object", "see /docs for its fields")
