"""The cache holds what fits, lets go of what was not used for longest, and is never over its bound."""

import threading

import pytest

from gradprobe.store.cache import Cache


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = Cache(100)
    for name in ("a", "b", "c"):
        cache.put(name, name.upper(), 30)
    assert cache.get("a") == "A"
    cache.put("d", "D", 30)
    assert [cache.get(name) for name in ("a", "b", "c", "d")] == ["A", None, "C", "D"]
    assert cache.size == 90


def test_what_would_drive_out_all_others_is_not_kept() -> None:
    cache = Cache(100)
    cache.put("small", 1, 50)
    cache.put("large", 2, 51)
    assert (cache.get("small"), cache.get("large"), cache.size) == (1, None, 50)


def test_a_key_keeps_its_first_value_and_counts_once() -> None:
    cache = Cache(100)
    cache.put("a", 1, 40)
    cache.put("a", 1, 40)
    assert cache.size == 40


def test_a_cache_of_nothing_keeps_nothing() -> None:
    cache = Cache(0)
    cache.put("a", 1, 1)
    assert (cache.get("a"), cache.size) == (None, 0)


@pytest.mark.parametrize("sizes", [[3, 5, 7], [1], [20, 50]], ids=str)
def test_threads_never_bring_it_over_its_bound(sizes: list[int]) -> None:
    cache = Cache(100)
    over: list[int] = []

    def work(thread: int) -> None:
        for number in range(300):
            size = sizes[number % len(sizes)]
            cache.put((thread, number), size, size)
            found = cache.get((thread, number - 1))
            if found not in (None, sizes[(number - 1) % len(sizes)]):
                over.append(found)
        if cache.size > 100:
            over.append(cache.size)

    threads = [threading.Thread(target=work, args=[thread]) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert over == []
    assert 0 < cache.size <= 100
