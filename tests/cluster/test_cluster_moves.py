"""Moves in a real cluster: under load, cancelled, and with Directory, source or target killed in the midst of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cluster_moves import filled, haystack, kill_at_each, move_options, move_under_load, pausing_cluster, under_load
from cluster_nodes import running_cluster

pytestmark = pytest.mark.timeout(240)


async def test_whoever_dies_in_the_midst_of_a_move_the_right_copies_are_left(tmp_path: Path) -> None:
    """All steps, and volumes of two copies, are a campaign: tests/campaigns/test_moves.py."""
    with pausing_cluster(tmp_path / "cluster", move_options("000")) as cluster:
        moved = await filled(cluster)
        await kill_at_each(moved, "directory", ("copying", "waited for", "switched"))
        await kill_at_each(moved, "source", ("counted",))
        await kill_at_each(moved, "target", ("copied",))


async def test_a_move_is_cancelled_and_a_copy_is_made_and_dropped_by_the_command(tmp_path: Path) -> None:
    with pausing_cluster(tmp_path / "cluster", move_options("001")) as cluster:
        moved = await filled(cluster)
        before = set((await moved.record())["inSync"])
        for moment in ("copying", "waited for"):
            source, target = await moved.places()
            moved.stop_at(moment)
            number = await moved.order("move", "--from", source, "--to", target)
            await moved.reached()
            code, answer = await asyncio.to_thread(
                haystack, cluster, "volume", "moves", "--cancel", str(number), "--apply"
            )
            assert code == 0 and answer["cancelled"] == [number] and answer["applied"]
            moved.go_on()
            await moved.over(number, "cancelled")
            await moved.right_copies(before)
        code, plan = await asyncio.to_thread(haystack, cluster, "volume", "copy", str(moved.volume))
        assert code == 0 and plan["applied"] is False and (await moved.record())["extraCopies"] == 0
        code, answer = await asyncio.to_thread(haystack, cluster, "volume", "copy", str(moved.volume), "--apply")
        assert code == 0 and answer["move"]["state"] == "done" and answer["move"]["copiedBytes"] > 0, answer
        await moved.right_copies({*before, answer["target"]})
        assert (await moved.record())["extraCopies"] == 1
        drop = ("volume", "drop", str(moved.volume), "--from", answer["target"], "--apply")
        code, answer = await asyncio.to_thread(haystack, cluster, *drop)
        assert code == 0, answer
        await moved.right_copies(before)


async def test_volumes_of_one_copy_move_under_load_and_no_read_fails(tmp_path: Path) -> None:
    """The same with two copies is a campaign."""
    with running_cluster(tmp_path / "cluster", under_load(move_options("000"))) as cluster:
        await move_under_load(cluster, moves=3)
