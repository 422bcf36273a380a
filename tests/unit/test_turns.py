"""So many at once, and the others in the order in which they came."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from rag.retrieval.turns import Turns


def waiting(turns: Turns, number: int) -> None:
    until = time.monotonic() + 10
    while len(turns._waiting) < number and time.monotonic() < until:
        time.sleep(0.001)
    assert len(turns._waiting) == number


def test_those_who_wait_go_in_the_order_in_which_they_came_and_nobody_overtakes() -> None:
    turns, order = Turns(1), list[int]()
    threads = []

    def take(number: int) -> None:
        with turns:
            order.append(number)

    with turns:
        for number in range(8):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            waiting(turns, number + 1)
    take(8)  # came last, though it was running already
    for thread in threads:
        thread.join(10)
    assert order == list(range(9))


def test_as_many_as_may_are_inside_at_once() -> None:
    turns, lock = Turns(3), threading.Lock()
    inside, most = 0, 0

    def take() -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns:
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.0005)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (inside, most, turns._free, len(turns._waiting)) == (0, 3, 3, 0)


def test_whoever_fails_gives_the_turn_on() -> None:
    turns = Turns(1)
    with pytest.raises(ValueError, match="wrong"), turns:
        raise ValueError("wrong")
    with turns:
        assert turns._free == 0
    assert turns._free == 1


def test_whoever_is_interrupted_while_waiting_takes_no_turn_along() -> None:
    turns = Turns(1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.get_ident()

    def interrupt() -> None:
        waiting(turns, 1)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    try:
        with turns:
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                turns.__enter__()
    finally:
        thread.join(10)
        signal.signal(signal.SIGINT, before)
    assert (turns._free, len(turns._waiting)) == (1, 0)
