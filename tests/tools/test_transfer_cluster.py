"""The transfer commands against a real Directory and a real Store."""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import json
import os
import pty
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transfer_cluster import RealCluster

from haystack.client import HaystackClient, Refused
from haystack.errors import NeedleNotFound
from haystack.fid import Fid

PNG = b"\x89PNG\r\n\x1a\n"
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    with contextlib.closing(_Closing(RealCluster(tmp_path_factory.mktemp("cluster")))) as closing:
        yield closing.cluster


class _Closing:
    def __init__(self, cluster: RealCluster) -> None:
        self.cluster = cluster

    def close(self) -> None:
        self.cluster.stop()


def photos(root: Path, count: int, *, seed: int = 1, most_bytes: int = 20_000) -> dict[str, bytes]:
    """Make images in nested folders; returns path → content."""
    dice = random.Random(seed)
    made = {}
    for number in range(count):
        path = f"{('', 'räume/', 'a/b/')[number % 3]}IMG {number:04}.png"
        made[path] = PNG + dice.randbytes(dice.randrange(most_bytes))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(made[path])
    return made


def manifest_of(root: Path) -> Path:
    return root.with_name(root.name + ".haystack-manifest.jsonl")


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def same_files(one: Path, other: Path) -> None:
    found = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert found == sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    assert filecmp.cmpfiles(one, other, found, shallow=False) == (found, [], [])


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():  # type: ignore[operator]  # a function
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


# -- single photos


def test_put_get_stat_rm(cluster: RealCluster, tmp_path: Path) -> None:
    data = PNG + random.Random(5).randbytes(3_000_000)
    (tmp_path / "kätzchen.png").write_bytes(data)
    (tmp_path / "empty.txt").write_bytes(b"")
    done = cluster.run("put", "kätzchen.png", "gone.png", "empty.txt", cwd=tmp_path, code=1)
    assert done.stderr == b"haystack: gone.png: No such file or directory\n"
    (fid, url), (empty, _) = (line.split() for line in done.stdout.decode().splitlines())

    for name in (fid, url):
        assert cluster.run("get", name).stdout == data
    assert cluster.run("get", empty).stdout == b""
    stat = cluster.json("stat", fid)
    assert (stat["name"], stat["mime"], stat["size"], stat["urls"]) == ("kätzchen.png", "image/png", len(data), [url])
    assert b"image/png" in cluster.run("stat", fid).stdout

    target = tmp_path / "out"
    target.mkdir()
    assert cluster.json("get", fid, "-o", target)["file"] == str(target / "kätzchen.png")
    assert (target / "kätzchen.png").read_bytes() == data
    (target / "kätzchen.png").write_bytes(b"precious")
    assert b"--force" in cluster.run("get", fid, "-o", target, code=1).stderr
    assert b"--force" in cluster.run("get", fid, "-o", target / "kätzchen.png", code=1).stderr
    assert (target / "kätzchen.png").read_bytes() == b"precious"
    cluster.run("get", fid, "-o", target / "kätzchen.png", "--force")
    assert [path.name for path in target.iterdir()] == ["kätzchen.png"]

    plan = cluster.run("rm", fid, "999,01000000000000000a", code=1)
    assert b"to delete" in plan.stdout and b"--apply" in plan.stderr
    assert cluster.run("get", fid).stdout == data
    assert cluster.json("rm", fid, "--apply")["photos"][0]["deleted"] is True
    assert b"haystack: " in cluster.run("get", fid, code=1).stderr
    cluster.run("stat", fid, code=1)
    cluster.run("rm", fid, "--apply", code=1)


def test_put_from_standard_input(cluster: RealCluster) -> None:
    data = random.Random(6).randbytes(2_500_000)
    stored = cluster.run("put", "-", "--name", "in.bin", "--mime", "x/y", "--json", stdin=data)
    fid = json.loads(stored.stdout)["stored"][0]["fid"]
    assert cluster.run("get", fid).stdout == data
    assert cluster.json("stat", fid)["mime"] == "x/y"


@pytest.mark.parametrize("name", ['we"ird%41;x=y.png', "日本 🐈.png", "'.png", "100%.png"])
def test_any_file_name_is_kept(cluster: RealCluster, name: str) -> None:
    stored = cluster.run("put", "-", "--name", name, "--json", stdin=PNG)
    assert cluster.json("stat", json.loads(stored.stdout)["stored"][0]["fid"])["name"] == name


def test_a_photo_that_is_too_large_is_refused_at_once(cluster: RealCluster, tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    refused = cluster.run("put", tmp_path / "large.png", code=1)
    assert b"67108864" in refused.stderr or b"64" in refused.stderr
    with (tmp_path / "large.png").open("rb") as file:
        assert b"64" in cluster.run("put", "-", stdin=file.read(), code=1).stderr


def test_photo_ids_are_known_once_confirmed(cluster: RealCluster, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    stored = cluster.json("put", tmp_path / "a.png")["stored"][0]
    photo_id = f"{Fid.parse(stored['fid']).key:x}"

    def known() -> bool:
        argv = cluster.argv("stat", photo_id)
        return subprocess.run(argv, env=cluster.environ, capture_output=True, timeout=60).returncode == 0

    wait_for(known)
    assert cluster.run("get", photo_id).stdout == PNG
    assert cluster.run("get", stored["locator"]).stdout == PNG


def test_wrong_usage(cluster: RealCluster, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    for arguments in (
        ("get", "1,01000000000000000a", "--json"),
        ("put", tmp_path / "x", tmp_path / "x", "--name", "n"),
        ("export", tmp_path / "out"),
        ("export", tmp_path / "out", "--all", "--volume", "1"),
        ("export", tmp_path / "out", "--all", "--force"),
        ("import", tmp_path / "gone"),
        ("bench", "--size", "5 apples"),
    ):
        assert cluster.run(*arguments, code=2).stdout == b""
    assert b"neither a fid" in cluster.run("get", "cat.jpg", code=1).stderr


def test_no_photo_goes_to_a_terminal(cluster: RealCluster) -> None:
    master, slave = pty.openpty()
    try:
        argv = cluster.argv("get", "1,01000000000000000a")
        done = subprocess.run(argv, stdout=slave, stderr=subprocess.PIPE, env=cluster.environ, timeout=60)
    finally:
        os.close(slave)
        os.close(master)
    assert done.returncode == 2 and b"-o FILE" in done.stderr


# -- folders


def test_import_and_export(cluster: RealCluster, tmp_path: Path) -> None:
    root = tmp_path / "Photos"
    made = photos(root, 60)
    (root / "notes.txt").write_text("no image")
    odd = os.fsdecode(b"not utf-8 \xff.png")
    (root / odd).write_bytes(PNG + b"odd")
    dry = cluster.json("import", root, "--dry-run")
    assert (dry["files"], dry["noImages"], dry["dryRun"]) == (61, 1, True)
    assert not manifest_of(root).exists()

    first = cluster.json("import", root)
    assert (first["files"], first["noImages"], first["failed"], first["alreadyDone"]) == (61, 1, 0, 0)
    assert first["bytes"] == sum(map(len, made.values())) + len(PNG) + 3
    assert first["manifest"] == str(manifest_of(root))
    again = cluster.run("import", root)
    assert again.stdout.startswith(b"Imported 0 files, 0 B\nAlready imported: 61 files")
    assert again.stderr == b""

    (root / "IMG 0000.png").write_bytes(PNG + b"changed")
    everything = cluster.json("import", root, "--all")
    assert (everything["files"], everything["alreadyDone"]) == (2, 60)

    out = tmp_path / "out"
    dry_export = cluster.json("export", out, "--manifest", manifest_of(root), "--dry-run")
    assert dry_export["files"] == 62 and not out.exists()
    assert cluster.json("export", out, "--manifest", manifest_of(root))["files"] == 62
    same_files(root, out)
    assert (out / odd).stat().st_mtime_ns == (root / odd).stat().st_mtime_ns
    assert cluster.json("export", out, "--manifest", manifest_of(root))["alreadyDone"] == 62

    (out / "IMG 0003.png").write_bytes(b"precious")
    (out / "IMG 0006.png").unlink()
    report = cluster.json("export", out, "--manifest", manifest_of(root), code=1)
    assert (report["files"], report["failures"][0]["path"]) == (1, "IMG 0003.png")
    assert (out / "IMG 0003.png").read_bytes() == b"precious"
    cluster.run("export", out, "--manifest", manifest_of(root), "--force")
    same_files(root, out)


def test_unreadable_files_are_named_at_the_end(cluster: RealCluster, tmp_path: Path) -> None:
    root = tmp_path / "Photos"
    photos(root, 3)
    (root / "loop.png").symlink_to(root / "loop.png")
    done = cluster.run("import", root, code=1)
    assert b"haystack: loop.png: Too many levels of symbolic links\n" in done.stderr
    assert done.stdout.startswith(b"Imported 3 files")


def test_an_import_that_was_killed_goes_on(cluster: RealCluster, tmp_path: Path) -> None:
    root = tmp_path / "Photos"
    made = photos(root, 300, most_bytes=2000)
    manifest = manifest_of(root)
    process = subprocess.Popen(
        cluster.argv("import", root, "--jobs", "2"), env=cluster.environ, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") > 20)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with manifest.open("ab") as file:
        file.write(b'{"path": "cut of')
    done_before = manifest.read_bytes().count(b"\n") - 1
    report = cluster.json("import", root)
    assert (report["alreadyDone"], report["files"]) == (done_before, len(made) - done_before)
    assert sorted(str(line["path"]) for line in lines_of(manifest)) == sorted(made)
    out = tmp_path / "out"
    cluster.run("export", out, "--manifest", manifest)
    same_files(root, out)


def test_an_interrupted_import_writes_down_what_it_did(cluster: RealCluster, tmp_path: Path) -> None:
    root = tmp_path / "Photos"
    made = photos(root, 300, most_bytes=2000)
    manifest = manifest_of(root)
    process = subprocess.Popen(
        cluster.argv("import", root, "--jobs", "2"), env=cluster.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_for(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") > 20)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    done_before = len(lines_of(manifest))
    assert cluster.json("import", root)["files"] == len(made) - done_before


def test_an_import_lives_through_the_death_of_the_store(cluster: RealCluster, tmp_path: Path) -> None:
    root = tmp_path / "Photos"
    made = photos(root, 400, most_bytes=2000)
    manifest = manifest_of(root)
    process = subprocess.Popen(
        cluster.argv("import", root, "--jobs", "4", "--json"), env=cluster.environ, stdout=subprocess.PIPE
    )
    try:
        wait_for(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") > 20)
        cluster.store.kill()
        cluster.store.start_again()
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, output
    assert json.loads(output)["files"] == len(made)
    out = tmp_path / "out"
    cluster.run("export", out, "--manifest", manifest)
    same_files(root, out)


def test_a_manifest_of_another_cluster_is_refused(cluster: RealCluster, tmp_path: Path) -> None:
    root = tmp_path / "Photos"
    photos(root, 1)
    head = {"haystackManifest": 1, "root": str(root), "clusterId": "another"}
    manifest_of(root).write_text(json.dumps(head) + "\n")
    assert b"belongs to cluster another" in cluster.run("import", root, code=1).stderr


def test_wrong_content_is_not_exported(cluster: RealCluster, tmp_path: Path) -> None:
    root = tmp_path / "Photos"
    photos(root, 2)
    cluster.run("import", root)
    lines = manifest_of(root).read_text().splitlines()
    bad, evil = json.loads(lines[1]), json.loads(lines[2])
    bad["xxh3"] = "0" * 16
    evil["path"] = "../evil.png"
    manifest_of(root).write_text("\n".join([lines[0], json.dumps(bad), json.dumps(evil)]) + "\n")
    report = cluster.json("export", tmp_path / "deep/out", "--manifest", manifest_of(root), code=1)
    assert (report["files"], report["failed"]) == (0, 2)
    assert [path for path in (tmp_path / "deep").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "deep/evil.png").exists()


def test_volumes_come_back_as_files(cluster: RealCluster, tmp_path: Path) -> None:
    same_name = [PNG + bytes([number]) for number in range(20)]
    fids = []
    for number, data in enumerate(same_name):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cat.png").write_bytes(data)
    paths = [tmp_path / str(number) / "cat.png" for number in range(20)]
    fids = [one["fid"] for one in cluster.json("put", *paths)["stored"]]
    evil = json.loads(cluster.run("put", "-", "--name", "../../evil.png", "--json", stdin=b"evil").stdout)
    fids.append(evil["stored"][0]["fid"])
    expected = dict(zip(fids, [*same_name, b"evil"], strict=True))

    out = tmp_path / "deep/er/out"
    report = cluster.json("export", out, "--all")
    assert report["failed"] == 0
    entries = {str(line["fid"]): str(line["path"]) for line in lines_of(Path(report["manifest"]))}
    assert {fid: (out / entries[fid]).read_bytes() for fid in fids} == expected
    assert len(set(entries.values())) == len(entries) == report["files"]
    assert not list(tmp_path.rglob("deep/evil*"))

    # As if it had been killed before the last lines were written, and a file was lost later.
    manifest = Path(report["manifest"])
    kept = manifest.read_text().splitlines()[:-5]
    manifest.write_text("\n".join(kept) + "\n")
    (out / json.loads(kept[1])["path"]).unlink()
    resumed = cluster.json("export", out, "--all")
    assert (resumed["files"], resumed["failed"]) == (6, 0)
    files = [path for path in out.rglob("*") if path.is_file() and path != manifest]
    assert len(files) == report["files"]

    volume = Fid.parse(fids[0]).volume
    one = cluster.json("export", tmp_path / "one", "--volume", str(volume))
    assert one["files"] == sum(entry.startswith(f"{volume}/") for entry in entries.values())
    assert b"no volume 4000" in cluster.run("export", tmp_path / "one", "--volume", "4000", code=1).stderr


def test_bench(cluster: RealCluster) -> None:
    report = cluster.json("bench", "--count", "50", "--size", "20KB", "--concurrency", "8", "--reads", "70", "--delete")
    phases = {phase["name"]: phase for phase in report["phases"]}
    assert {name: (phase["operations"], phase["errors"]) for name, phase in phases.items()} == {
        "write": (50, 0),
        "read": (70, 0),
        "delete": (50, 0),
    }
    assert phases["write"]["latencyMs"].keys() == {"p50", "p90", "p99", "max"}
    text = cluster.run("bench", "--count", "3", "--size", "1KiB")
    assert b"P99 MS" in text.stdout and b"--delete" in text.stderr


def test_without_a_cluster(cluster: RealCluster, tmp_path: Path, unused_tcp_port: int) -> None:
    elsewhere = f"http://127.0.0.1:{unused_tcp_port}"
    photos(tmp_path / "Photos", 1)
    done = cluster.run("import", tmp_path / "Photos", "--directory", elsewhere, code=1)
    assert b"cannot connect" in done.stderr and done.stderr.count(b"\n") == 1


# -- the client itself


async def test_client_with_a_real_store(cluster: RealCluster, tmp_path: Path) -> None:
    data = random.Random(9).randbytes(5_000_000)
    path = tmp_path / "x"
    path.write_bytes(data)
    async with HaystackClient(cluster.environ["HAYSTACK_DIRECTORY"]) as client:
        stored = await asyncio.gather(*(client.upload(data[: 1000 * number]) for number in range(60)))
        for number, photo in enumerate(stored):
            assert await client.read(photo.locator) == data[: 1000 * number]
        large = await client.upload(path)
        assert await client.read(large.fid) == data
        fid = Fid.parse(large.fid)
        rendition = await client.upload(b"small", fid=Fid(fid.volume, fid.key, fid.cookie, 3))
        assert await client.read(rendition.fid) == b"small"
        with pytest.raises(NeedleNotFound):
            await client.read(Fid(fid.volume, fid.key, fid.cookie ^ 1))
        with pytest.raises(Refused):
            await client.upload(b"theirs", fid=Fid(fid.volume, fid.key, fid.cookie ^ 1))
        assert await client.delete(large.fid) == len(data)
        assert await client.read(rendition.fid) == b"small"


def test_an_import_on_a_terminal_shows_a_bar(cluster: RealCluster, tmp_path: Path) -> None:
    photos(tmp_path / "Photos", 20)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        cluster.argv("import", tmp_path / "Photos"), stdout=subprocess.PIPE, stderr=slave, env=cluster.environ
    )
    os.close(slave)
    shown = bytearray()
    # The other end reads as an error when the process has ended.
    with contextlib.suppress(OSError):
        while data := os.read(master, 65536):
            shown += data
    os.close(master)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, bytes(shown)
    assert b"Importing" in shown
    assert said.startswith(b"Imported 20 files")
