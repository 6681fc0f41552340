"""Errors that a user can act on.

Every message says what is wrong, where, what was expected and what to do next. Programming mistakes
inside dist_gat are `assert`s; everything that a user, a file or a cluster can cause is one of these.
"""


class DistGatError(Exception):
    """Base of all errors that dist_gat raises on purpose; the command line prints them without a traceback."""


class ConfigError(DistGatError, ValueError):
    """A setting is unknown, missing or out of range."""


class DataError(DistGatError, ValueError):
    """An input file or row can't be used as it is."""


class StorageError(DistGatError, OSError):
    """A file that dist_gat wrote earlier is missing, damaged or of another format version."""


class ClusterError(DistGatError, RuntimeError):
    """Workers could not be started, or one of them failed or never joined."""


class TrainingError(DistGatError, ArithmeticError):
    """The numbers of a run went wrong. Every rank raises it at the same step, before the update."""
