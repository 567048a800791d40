import threading
import time

import pytest

from processing.parallel import Process, map_in_threads, this_process


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_results_come_in_order_whoever_is_ready_first(threads):
    def wait(number):
        time.sleep(0.002 * (number % 3 == 0))
        return number

    assert list(map_in_threads(wait, range(20), threads=threads)) == list(range(20))


def test_items_are_taken_only_as_fast_as_results_are():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_in_threads(lambda number: number, items(), threads=2, ahead=3)
    assert [next(results) for _ in range(5)] == list(range(5))
    assert len(taken) <= 5 + 2 * 3 + 1
    results.close()


@pytest.mark.parametrize("threads", [0, 2])
def test_an_exception_comes_where_the_result_would(threads):
    def fail_at_two(number):
        if number == 2:
            raise KeyError("two")
        return number

    results = map_in_threads(fail_at_two, range(5), threads=threads)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)


def test_no_thread_stays_behind():
    before = threading.active_count()
    results = map_in_threads(lambda number: number, range(100), threads=3)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_which_process_this_is_is_read_when_asked(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert this_process() == Process(rank=0, local_rank=0, count=1)
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert this_process() == Process(0, 0, 1)      # another launcher's
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert this_process() == Process(3, 1, 4)
    monkeypatch.setenv("RANK", "x")
    assert this_process() == Process(0, 0, 1)
