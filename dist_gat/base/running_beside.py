"""`running_beside`: a function in a thread while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running_beside(function: Callable[[threading.Event], None]) -> Iterator[None]:
    """Call `function` in a thread, with an event that is set when the block is left; it must end then."""
    done = threading.Event()
    thread = threading.Thread(target=function, args=(done,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
