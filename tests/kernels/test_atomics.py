"""Counters that threads share, and waiting for each other."""

import threading

import numpy as np
from numba import njit

from dist_gat.kernels.atomics import publish, take, wait_until

NUM_THREADS, NUM_TASKS = 4, 200_000


@njit(nogil=True)
def take_all(counter, taken):
    while True:
        task = take(counter, 0)
        if task >= taken.shape[0]:
            return
        taken[task] += 1


@njit(nogil=True)
def pass_on(turn, number, num_threads, values):
    """A relay: in its turn each thread adds to what the one before wrote."""
    for step in range(number, values.shape[0] - 1, num_threads):
        wait_until(turn, 0, step)
        values[step + 1] = values[step] + 1
        publish(turn, 0, step + 1)


def run(target, arguments_of):
    threads = [threading.Thread(target=target, args=arguments_of(number)) for number in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_every_task_is_taken_once():
    counter, taken = np.zeros(1, np.int64), np.zeros(NUM_TASKS, np.int64)
    run(take_all, lambda _: (counter, taken))
    assert (taken == 1).all()
    assert counter[0] == NUM_TASKS + NUM_THREADS


def test_who_waits_sees_what_was_written_before():
    turn, values = np.zeros(1, np.int64), np.zeros(2000, np.int64)
    run(pass_on, lambda number: (turn, number, NUM_THREADS, values))
    assert (values == np.arange(2000)).all()
