"""What a Store gives of a volume's bytes: of the generation that is asked for, and how far all copies have it."""

from __future__ import annotations

from pathlib import Path

from supervisor_harness import StoreProcess, fid


async def test_a_question_for_the_tail_names_what_it_is_of(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path / "a") as store:
        made = await store.make_volume(1)
        assert await store.put(fid(1, 7), b"photo") == 201
        said = await store.admin("GET", "/admin/volumes/1/hashes", expect=200)
        size_bytes = (await store.admin("GET", "/admin/volumes/1"))["sizeBytes"]
        assert said == {
            "tail": size_bytes,
            "committed": size_bytes,
            "uuid": made["uuid"],
            "generation": 0,
            "hashes": [],
        }


async def test_bytes_of_another_generation_are_refused(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path / "a") as store:
        await store.make_volume(1)
        assert len((await store.admin("GET", "/admin/volumes/1/hashes?from=0&to=64&generation=0"))["hashes"]) == 1
        for call in ("bytes", "hashes"):
            refused = await store.admin("GET", f"/admin/volumes/1/{call}?from=0&to=64&generation=3", expect=409)
            assert "has generation 0 by now, not 3" in refused["error"]
