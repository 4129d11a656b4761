"""What `status` makes of a cluster's state."""

from __future__ import annotations

from typing import Any

import pytest
from fake_cluster import node_document, repair_document, store_document, volume_document

from tools.findings import Findings, Health, findings
from tools.nodes import parse_nodes, parse_repair
from tools.view import parse_cluster

DEGRADED = {
    "volume": 3,
    "promised": 2,
    "inSync": ["id-1"],
    "stale": [],
    "copyInSeconds": None,
    "reason": "",
}


def judge(
    *nodes: dict[str, Any],
    volumes: list[dict[str, Any]] | None = None,
    problems: list[str] | None = None,
    **repair: Any,
) -> Findings:
    view = parse_cluster(
        {
            "Version": "haystack 1",
            "ClusterId": "c",
            "Counts": {
                "stores": len(nodes),
                "storesAlive": sum(node["state"] == "alive" for node in nodes),
                "volumes": 3,
                "volumesWritable": 3,
                "photos": 1,
            },
            "Problems": problems or [],
            "Stores": [store_document(number, "a:1", node["state"]) for number, node in enumerate(nodes, 1)],
            "Volumes": volumes if volumes is not None else [volume_document(1, 1)],
        }
    )
    return findings(view, parse_nodes({"nodes": list(nodes)}), parse_repair(repair_document(**repair)))


def test_well() -> None:
    found = judge(node_document(1), node_document(2))
    assert found == Findings(Health.WELL, [], [], [])


def test_a_dead_store_whose_photos_are_elsewhere() -> None:
    found = judge(node_document(1), node_document(2, state="dead", lastSeenSecondsAgo=400.0))
    assert found.health is Health.ATTENTION
    assert found.problems == ["Store 127.0.0.1:8081 was heard of 7 min ago; other Stores have its photos"]
    assert "haystack node remove 127.0.0.1:8081 --apply" in found.advice[0]
    found = judge(node_document(1), node_document(2, state="dead", volumes=0))
    assert found.problems[0].endswith("it is not needed: all volumes have their copies elsewhere")


def test_a_store_whose_disk_was_replaced() -> None:
    before = node_document(2, storeId="old-id", state="dead", volumes=3)
    found = judge(node_document(1), before, node_document(2))
    assert found.problems == [
        "the Store that was at 127.0.0.1:8081 before (old-id) is gone; other Stores have its photos"
    ]
    assert found.advice == ["If its disks are lost: haystack node remove old-id --apply"]


def test_photos_that_cannot_be_read_come_first() -> None:
    dead = node_document(2, state="dead", lastSeenSecondsAgo=4.0, onlyCopies=[7])
    found = judge(node_document(1), dead, volumes=[volume_document(1, 1), volume_document(7, 2)])
    assert found.health is Health.EMERGENCY
    assert found.problems[0].startswith("volume 7 cannot be read: all up-to-date copies are on 127.0.0.1:8081")
    assert found.problems[1].endswith("it has the only up-to-date copies of volume 7")
    assert found.advice[0].startswith("Start 127.0.0.1:8081 again")


def test_a_cluster_that_repairs_itself_needs_nobody() -> None:
    running = {"volume": 3, "action": "copy", "target": "id-2", "copiedBytes": 30, "totalBytes": 120}
    degraded = [DEGRADED, {**DEGRADED, "volume": 5}, {**DEGRADED, "volume": 9, "promised": 3, "copyInSeconds": 90.0}]
    found = judge(node_document(1), node_document(2), degraded=degraded, running=[running])
    assert found.health is Health.REPAIRING
    assert found.problems == ["volumes 3, 5 have 1 of 2 copies", "volume 9 has 1 of 3 copies"]
    assert found.advice == []
    assert found.notes == [
        "1 copy is being made, 25% done; see: haystack repair",
        "New copies are made in 90 s, unless the Stores come back before; at once with: haystack repair --apply",
    ]


def test_what_repair_cannot_do_needs_somebody() -> None:
    found = judge(node_document(1), degraded=[DEGRADED], blocked=[{"volume": 3, "reason": "there is no other rack"}])
    assert found.health is Health.ATTENTION
    assert found.problems[0] == "volume 3 cannot get all copies: there is no other rack"


def test_repair_that_keeps_failing_needs_somebody() -> None:
    recent = [
        {"volume": 3, "ok": False, "error": "Store b:1 refused with 507: full", "target": "id-1"},
        {"volume": 3, "ok": True, "error": ""},
        {"volume": 8, "ok": False, "error": "of a volume that has its copies now"},
    ]
    dead = [{"volume": 3, "error": "no answer", "target": "id-2"}]
    assert not any(
        "failed" in one
        for one in judge(node_document(1), node_document(2, state="dead"), degraded=[DEGRADED], recent=dead).problems
    )
    found = judge(node_document(1), degraded=[DEGRADED], recent=recent)
    assert found.health is Health.ATTENTION
    assert found.problems == [
        "the repair of volume 3 failed and is tried again: Store b:1 refused with 507: full",
        "volume 3 has 1 of 2 copies",
    ]


def test_what_the_directory_says_is_not_said_twice() -> None:
    said = [
        "Store 127.0.0.1:8081 (id-2) is silent, and marked maintenance",
        "Store 127.0.0.1:8081 (id-2) is alive, and marked readonly",
        "5 volumes have fewer copies in sync than promised: 1, 2; 0 copies are being made",
        "volumes 1, 2 and 7 more: there is no other rack",
        "volume 3: Store x does not have it any more",
        "Store 127.0.0.1:8081: data folder /d is full: no room",
    ]
    found = judge(node_document(1), problems=said)
    assert found.problems == said[4:]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"mark": "maintenance", "state": "dead"}, "is away for maintenance"),
        ({"mark": "maintenance"}, "haystack node maintenance --off 127.0.0.1:8081 --apply"),
        ({"mark": "draining", "drain": {"volumesLeft": 4, "bytesLeft": 1, "blocked": [], "done": False}}, "4 volumes"),
        ({"mark": "draining", "drain": {"volumesLeft": 0, "bytesLeft": 0, "blocked": [], "done": True}}, "is drained"),
    ],
)
def test_what_an_operator_did_is_no_problem(change: dict[str, Any], note: str) -> None:
    found = judge(node_document(1), node_document(2, **change))
    assert found.health is Health.WELL
    assert note in " ".join(found.notes)


def test_full_disks_and_a_directory_that_has_just_started() -> None:
    found = judge(node_document(1, freeBytes=2**34), settled=False)
    assert found.problems == ["the disks of Store 127.0.0.1:8080 are 98% full"]
    assert found.notes == ["The Directory has just started; until all Stores have reported, nothing is given up."]


def test_many_volumes_are_not_all_listed() -> None:
    found = judge(node_document(1), degraded=[{**DEGRADED, "volume": number} for number in range(1, 31)])
    assert found.problems == ["volumes 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 20 more have 1 of 2 copies"]
