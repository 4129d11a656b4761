"""Checking volume files on this machine, without any server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack.errors import ConfigError, HaystackError
from tools.output import Output


@dataclass(frozen=True, slots=True)
class Checked:
    """The result for one copy of a volume.

    Parameters
    ----------
    name: the file, or volume and Store.
    report: as of :class:`haystack.volume.check.CheckReport`; empty when it could not be checked.
    error: why it could not be checked.
    path: of a file on this machine.
    copy: volume and Store id of a copy that a running Store has.
    """

    name: str
    report: dict[str, Any]
    error: str | None = None
    path: Path | None = None
    copy: tuple[int, str] | None = None

    @property
    def ok(self) -> bool:
        """Whether it was checked and has no problem."""
        return self.error is None and bool(self.report.get("ok"))


def volume_files(paths: Iterable[Path]) -> list[Path]:
    """Return the volume files that the paths mean: a file itself, of a folder all, of a whole cluster's folder too.

    Raises
    ------
    ConfigError: a path is neither, or a folder holds no volume.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            volumes = sorted(path.glob("*.vol"), key=_order) or sorted(path.glob("store*/*.vol"), key=_order)
            if not volumes:
                raise ConfigError(f"{path}: no volume file (*.vol) is in this folder")
            found += volumes
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigError(f"{path}: no such file or folder, and no volume number")
    return found


def check_files(paths: Sequence[Path], *, full: bool, output: Output) -> list[Checked]:
    """Check the files one after another, with a bar for each on a terminal."""
    return [check_file(path, full=full, output=output) for path in paths]


def check_file(path: Path, *, full: bool, output: Output) -> Checked:
    """Check one file, with a bar on a terminal."""
    # Imported here: the engine brings LMDB and more, which no other command of this machine needs.
    from haystack.volume.check import check_volume

    try:
        with output.progress(str(path), path.stat().st_size, "bytes") as bar:
            return Checked(str(path), check_volume(path, full=full, progress=bar.at).to_json(), path=path)
    except HaystackError as error:
        return Checked(str(path), {}, str(error), path)


def _order(path: Path) -> tuple[str, int, str]:
    # 10.vol behind 9.vol.
    return (str(path.parent), int(path.stem) if path.stem.isdigit() else 0, path.name)
