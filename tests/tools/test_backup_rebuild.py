"""`directory backup` and `directory rebuild`, against stand-ins; test_replicated_cluster.py does it for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster

from tools import cli, rebuild
from tools.folders import require_empty
from tools.rebuild import Progress, parse_progress, watch

Capture = pytest.CaptureFixture[str]


class TestBackup:
    def test_a_file_whole_and_verified(self, cluster: FakeCluster, capsys: Capture, tmp_path: Path) -> None:
        file = tmp_path / "directory.backup"
        assert cli.run(["directory", "backup", str(file)]) == 0
        assert file.read_bytes() == cluster.backup
        out, err = capsys.readouterr()
        assert out.startswith(f"{file}: 586 KiB, checksum ")
        assert err == ""
        assert cli.run(["directory", "backup", str(file)]) == 2
        assert "is there already" in capsys.readouterr().err
        assert cli.run(["directory", "backup", str(file), "--force", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["bytes"] == len(cluster.backup)

    def test_what_is_not_whole_is_not_kept(self, cluster: FakeCluster, capsys: Capture, tmp_path: Path) -> None:
        cluster.backup_checksum = "0" * 16
        before = sorted(tmp_path.iterdir())
        assert cli.run(["directory", "backup", str(tmp_path / "b")]) == 1
        assert "where 0000000000000000 was announced; nothing was kept" in capsys.readouterr().err
        cluster.backup_checksum = ""
        assert cli.run(["directory", "backup", str(tmp_path / "b")]) == 1
        assert "has no X-Haystack-Checksum" in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before

    def test_refusals(
        self, cluster: FakeCluster, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
    ) -> None:
        file = str(tmp_path / "b")
        assert cli.run(["directory", "backup", file, "--directory", f"http://127.0.0.1:{free_port}"]) == 1
        assert "cannot connect: Connection refused" in capsys.readouterr().err
        assert cli.run(["directory", "backup", str(tmp_path / "no" / "b")]) == 1
        assert "No such file or directory" in capsys.readouterr().err
        monkeypatch.delenv("HAYSTACK_SECRET_FILE")
        assert cli.run(["directory", "backup", file]) == 2
        assert "give --secret-file FILE" in capsys.readouterr().err
        monkeypatch.setenv("HAYSTACK_SECRET", "x" * 64)
        assert cli.run(["directory", "backup", file]) == 1
        assert not Path(file).exists()

    def test_options_of_the_role_are_not_lost(self, cluster: FakeCluster, capsys: Capture, tmp_path: Path) -> None:
        assert cli.run(["directory", "--port", "1", "backup", str(tmp_path / "b")]) == 2
        assert "options of backup stand behind that word" in capsys.readouterr().err


def status(stores: int, volumes: int, confirmed: int, photos: int) -> dict[str, Any]:
    return {
        "Counts": {"photos": photos},
        "Confirmed": {"stores": stores, "volumes": volumes, "volumesConfirmed": confirmed},
    }


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, title: str, total: int | None) -> Any:
        from tools.output import Output

        return Output(json_mode=True).progress(title, total)


class TestRebuild:
    async def test_it_waits_for_all_and_for_quiet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rebuild, "POLL_SECONDS", 0.0)
        answers = [
            status(0, 0, 0, 0),
            status(1, 3, 0, 0),
            status(2, 5, 3, 70),
            *[status(3, 7, 7, 100)] * 3,  # a moment's quiet is none
            status(3, 8, 7, 100),
            *[status(3, 8, 8, 120)] * 4,
            status(9, 9, 9, 999),
        ]

        class Directory:
            async def directory(self, method: str, path: str) -> dict[str, Any]:
                return answers.pop(0)

        notes = Notes()
        clock_seconds = iter(range(1000))
        found = await watch(Directory(), notes, 3, clock=lambda: float(next(clock_seconds)))  # type: ignore[arg-type]
        assert found == Progress(3, 8, 8, 120)
        assert len(answers) == 1
        assert notes.lines == [
            "0 of 3 Stores have registered; all photos are told of 0 of 0 volumes; 0 photos so far",
            "1 of 3 Stores have registered; all photos are told of 0 of 3 volumes; 0 photos so far",
            "2 of 3 Stores have registered; all photos are told of 3 of 5 volumes; 70 photos so far",
            "3 of 3 Stores have registered; all photos are told of 7 of 7 volumes; 100 photos so far",
        ]

    def test_nothing_is_overwritten(self, capsys: Capture, tmp_path: Path) -> None:
        (tmp_path / "directory.lmdb").write_bytes(b"x")
        assert cli.run(["directory", "rebuild", "--data", str(tmp_path), "--stores", "1"]) == 1
        assert "begins with an empty folder, and here is directory.lmdb; move it away" in capsys.readouterr().err
        (tmp_path / "directory.lmdb").unlink()
        (tmp_path / "lost+found").mkdir()
        for folder in (tmp_path, tmp_path / "to be made"):
            require_empty(folder, "rebuilding begins")

    def test_another_release(self) -> None:
        with pytest.raises(rebuild.UnexpectedAnswer, match="not understood"):
            parse_progress({"Counts": {}})

    def test_wrong_usage(self, capsys: Capture, tmp_path: Path) -> None:
        assert cli.run(["directory", "rebuild", "--data", str(tmp_path)]) == 2
        assert cli.run(["directory", "rebuild", "--stores", "1"]) == 2
        assert "directory.data is not set" in capsys.readouterr().err
