"""The bounded cache against a list of what was added."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haystack.bounded import BoundedCache


@given(st.integers(1, 5), st.lists(st.integers(0, 99), unique=True, max_size=40))
def test_the_newest_keys_are_kept(max_keys: int, keys: list[int]) -> None:
    cache = BoundedCache[int, str](max_keys)
    for count, key in enumerate(keys, 1):
        cache.add(key, str(key))
        assert dict(cache) == {kept: str(kept) for kept in keys[max(0, count - max_keys) : count]}


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["add", "add", "add", "delete", "clear"]), st.integers(0, 9)), max_size=60),
)
def test_it_never_has_too_many_keys_and_always_the_last_one(max_keys: int, steps: list[tuple[str, int]]) -> None:
    cache, model = BoundedCache[int, int](max_keys), dict[int, int]()
    for number, (step, key) in enumerate(steps):
        if step == "add":
            cache.add(key, number)
            model[key] = number
            assert cache[key] == number
        elif step == "delete":
            cache.pop(key, None)
            model.pop(key, None)
        else:
            cache.clear()
            model.clear()
        assert len(cache) <= max_keys
        assert cache.items() <= model.items()
