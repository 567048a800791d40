import threading
import time

import pytest

from processing.parallel import map_in_threads


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
