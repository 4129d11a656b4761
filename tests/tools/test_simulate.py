"""``haystack simulate``: tables, JSON, the picture, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools import cli, simulate_plot

SMALL = """
months = 1
uploads_per_month = 300_000
data_centers = 2
rack_machines = 2
machine_disks = 2
disk_bytes = "100GB"
volume_bytes = "10GB"
writable_volumes = 4
machine_failures_per_year = 2
rebalance_seconds = "10d"
replication = "100"
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(SMALL)
    return path


def test_tables_say_what_happened(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", "--scenario", str(scenario), "--months", "2"]) == 0
    text = capsys.readouterr().out
    for word in ("MONTH", "FULLEST", "machines bought for growth", "volumes lost", "formula: 2 independent copies"):
        assert word in text
    months = [line.split()[0] for line in text.splitlines()[1:3]]
    assert months == ["1", "2"]


def test_json_is_one_document_and_runs_differ_in_their_seeds(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["simulate", "--scenario", str(scenario), "--runs", "2", "--seed", "5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in document["runs"]] == [5, 6]
    assert document["scenario"]["seed"] == 5 and document["scenario"]["months"] == 1
    assert document["samples"][-1]["stored_bytes"] == document["stored_bytes"] > 0
    assert [estimate["depth"] for estimate in document["estimates"]] == [0, 1, 2]


def test_runs_in_processes_of_their_own_are_the_same_runs(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["simulate", "--scenario", str(scenario), "--runs", "2", "--json"]
    assert cli.run(command) == 0
    alone = json.loads(capsys.readouterr().out)
    assert cli.run([*command, "--jobs", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == alone


def test_several_runs_bound_the_chance_of_loss(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", "--scenario", str(scenario), "--runs", "3"]) == 0
    assert "Of 3 runs " in capsys.readouterr().out


def test_the_curves_are_drawn(scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    base = ["simulate", "--scenario", str(scenario)]
    assert cli.run([*base, "--rebalance-seconds", "0", "--json"]) == 0
    other = tmp_path / "other.json"
    other.write_text(capsys.readouterr().out)
    picture = tmp_path / "curves.png"
    assert cli.run([*base, "--plot", str(picture), "--against", str(other)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in capsys.readouterr().err


def test_without_matplotlib_it_is_said_before_the_work(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulate_plot, "find_spec", lambda name: None)
    assert cli.run(["simulate", "--scenario", str(scenario), "--plot", str(tmp_path / "x.png")]) == 2
    captured = capsys.readouterr()
    assert "haystack-photos[plots]" in captured.err and not captured.out
    assert "matplotlib" not in sys.modules or not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--months", "0"], "months"),
        (["--disk-bytes", "5TT"], "disk_bytes"),
        (["--scenario", "/nonexistent.toml"], "cannot be read"),
        (["--against", "/nonexistent.json"], "cannot be read"),
        (["--replication", "900"], "data centers"),
    ],
)
def test_wrong_settings_are_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_another_run_must_be_one(scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text("[]")
    assert cli.run(["simulate", "--scenario", str(scenario), "--against", str(other)]) == 2
    assert "is not what haystack simulate --json prints" in capsys.readouterr().err
