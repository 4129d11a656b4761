"""The hash table of names: against a dictionary, with many names of the same place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.memory.layout import name_bits, table_cells
from cache.memory.table import MAX_PROBES, NameTable

CELLS = 64


def new_table(cells: int = CELLS) -> NameTable:
    return NameTable(memoryview(bytearray(8 * cells)).cast("Q"))


names = st.tuples(st.integers(0, 7), st.sampled_from((0, 1, 5)))
"""Home and upper bits: few, so that names meet."""


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("put", "remove", "replace")), names), max_size=120))
def test_it_holds_what_was_put_and_not_removed(steps: list[tuple[str, tuple[int, int]]]) -> None:
    table = new_table()
    held: dict[int, list[int]] = {}
    entry = 0
    for action, (home, upper) in steps:
        bits = (60 + home) % CELLS | upper << 6  # so that runs go round the end of the table
        mine = held.setdefault(bits, [])
        if action == "put" and sum(map(len, held.values())) < CELLS // 2:
            assert table.put(bits, entry)
            mine.append(entry)
            entry += 1
        elif action == "replace" and mine:
            assert table.replace(bits, mine[0], entry)
            mine[0] = entry
            entry += 1
        elif action == "remove":
            assert not table.remove(bits, 10**6)
            if mine:
                assert table.remove(bits, mine.pop())
        for bits_, entries in held.items():
            assert sorted(table.candidates(bits_)) == sorted(entries)


def test_alternate_keys_are_found_together_and_apart() -> None:
    table = new_table(256)
    bits = [name_bits(3, 1234, alternate, table.shift) for alternate in range(20)]
    assert len(set(bits)) == 20
    for entry, number in enumerate(bits):
        table.put(number, entry)
    table.put(name_bits(3, 1235, 0, table.shift), 99)
    assert sorted(table.candidates(bits[0], alternates=True))[:20] == list(range(20))
    assert list(table.candidates(bits[7])) == [7]


def test_too_many_names_of_one_place_are_refused() -> None:
    table = new_table(1024)
    assert all(table.put(5, entry) for entry in range(MAX_PROBES))
    assert not table.put(5, MAX_PROBES)
    assert table.remove(5, 0)
    assert table.put(5, MAX_PROBES)


def test_sequential_keys_spread_over_the_table() -> None:
    cells = table_cells(4096)
    table = new_table(cells)
    assert all(table.put(name_bits(1, key, 0, table.shift), key) for key in range(4096))
    probes = sum(len(list(table.candidates(name_bits(1, key, 0, table.shift)))) for key in range(4096))
    assert probes < 4096 * 1.01
