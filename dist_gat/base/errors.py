"""Errors that a user can act on.

Every message says what is wrong, where, what was expected and what to do next. Programming mistakes
inside dist_gat are `assert`s; everything that a user, a file or a cluster can cause is one of these.
"""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"  # invisible, but Persian and emoji need them


def printable(text: str, keep: str = "\n") -> str:
    """`text` for a terminal: what is not text (control characters, so ANSI sequences; lone surrogates; marks that turn
    the direction of writing) as visible backslash escapes, except the characters in `keep`."""
    return "".join(ch if _is_text(ch) or ch in keep else repr(ch)[1:-1] for ch in text)


def first_line(err: BaseException) -> str:
    """What another library's error says first; the rest is mostly for its authors."""
    return str(err).strip().partition("\n")[0]


def _is_text(ch: str) -> bool:
    return ch in JOINERS or unicodedata.category(ch) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


class DistGatError(Exception):
    """Base of all errors that dist_gat raises on purpose; the command line prints them without a traceback.

    A message may quote a file, so it is made printable here, once.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(DistGatError, ValueError):
    """A setting is unknown, missing or out of range."""


class DataError(DistGatError, ValueError):
    """An input file or row can't be used as it is."""


class UnknownIdError(DataError):
    """An ID that the data set or the model doesn't know."""


class StorageError(DistGatError, OSError):
    """A file that dist_gat wrote earlier is missing, damaged or of another format version."""


class ClusterError(DistGatError, RuntimeError):
    """Workers could not be started, or one of them failed or never joined."""


class TrainingError(DistGatError, ArithmeticError):
    """The numbers of a run went wrong. Every rank raises it at the same step, before the update."""
