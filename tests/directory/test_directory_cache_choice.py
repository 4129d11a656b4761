"""Which Cache a photo belongs to: shares follow the weights, and only the share of who joins or leaves moves."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from directory.decisions.caches import spread
from haystack.rendezvous import Node, order, turned

PHOTOS = 4000

node_sets = st.dictionaries(
    st.text("0123456789abcdef", min_size=1, max_size=8), st.integers(1, 64), min_size=1, max_size=12
).map(lambda weights: [Node(name, float(weight)) for name, weight in weights.items()])
photos = st.integers(0, 2**64 - 1)


def shares(nodes: list[Node]) -> Counter[str]:
    return Counter(order(photo * 0x9E3779B97F4A7C15 % 2**64, nodes, 1)[0].id for photo in range(PHOTOS))


@given(photos, node_sets)
def test_every_node_is_named_once_and_everybody_agrees(photo: int, nodes: list[Node]) -> None:
    whole = order(photo, nodes)
    assert sorted(whole) == sorted(nodes)
    assert order(photo, reversed(nodes)) == whole
    for most in (1, 3):
        assert order(photo, nodes, most) == whole[:most]


@given(photos, node_sets, st.integers(1, 64))
def test_a_node_that_joins_changes_nothing_among_the_others(photo: int, nodes: list[Node], weight: int) -> None:
    joined = order(photo, [*nodes, Node("new-node", float(weight))])
    assert [node for node in joined if node.id != "new-node"] == order(photo, nodes)


@given(photos, node_sets.filter(lambda nodes: len(nodes) > 1), st.data())
def test_a_node_that_leaves_changes_nothing_among_the_others(
    photo: int, nodes: list[Node], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(nodes))
    rest = [node for node in nodes if node != gone]
    assert order(photo, rest) == [node for node in order(photo, nodes) if node != gone]


@given(photos, node_sets, st.floats(0.01, 1000))
def test_the_unit_of_the_weights_does_not_matter(photo: int, nodes: list[Node], factor: float) -> None:
    scaled = [Node(node.id, node.weight * factor) for node in nodes]
    assert [node.id for node in order(photo, scaled)] == [node.id for node in order(photo, nodes)]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=2, max_size=5))
def test_shares_are_in_proportion_to_the_weights(weights: list[int]) -> None:
    nodes = [Node(f"cache-{number}", float(weight)) for number, weight in enumerate(weights)]
    found = shares(nodes)
    for node in nodes:
        fair = PHOTOS * node.weight / sum(weights)
        # Five standard deviations of a fair draw.
        assert abs(found[node.id] - fair) < 5 * fair**0.5 + 1


def test_what_moves_to_a_node_that_joins_is_its_share() -> None:
    nodes = [Node(f"cache-{number}", 4.0) for number in range(4)]
    moved = Counter[bool]()
    for photo in range(PHOTOS):
        before, after = order(photo, nodes, 1)[0], order(photo, [*nodes, Node("new", 4.0)], 1)[0]
        assert after == before or after.id == "new"
        moved[after != before] += 1
    assert abs(moved[True] - PHOTOS / 5) < 5 * (PHOTOS / 5) ** 0.5


@given(st.integers(0, 20), st.floats(0, 1e9), st.floats(0, 1e6))
def test_a_photo_is_shared_by_as_many_as_its_heat_asks_for(nodes: int, reads: float, share: float) -> None:
    sharing = spread(nodes, reads, share)
    assert min(nodes, 1) <= sharing <= nodes
    if share and nodes:
        assert sharing == nodes or sharing * share >= reads * (1 - 1e-9)
        assert sharing == 1 or (sharing - 1) * share < reads


@given(node_sets, st.integers(0, 12), st.floats(0, 1, exclude_max=True))
def test_readers_of_a_shared_photo_begin_at_one_of_those_who_share_it(
    nodes: list[Node], sharing: int, dice: float
) -> None:
    sharing = min(sharing, len(nodes))
    ordered = order(7, nodes)
    found = turned(ordered, sharing, dice)
    assert sorted(found) == sorted(ordered)
    assert found[0] in ordered[: max(1, sharing)]
    rest = [node for node in ordered if node != found[0]]
    assert found[1:] == rest


def test_readers_are_spread_evenly() -> None:
    nodes = order(7, [Node(f"cache-{number}", 1.0) for number in range(5)])
    firsts = Counter(turned(nodes, 3, dice / 300)[0] for dice in range(300))
    assert dict(firsts) == dict.fromkeys(nodes[:3], 100)
