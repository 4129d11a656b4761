"""What a check found put right: what can be mended and how (pure), and doing it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from haystack.client.errors import UnexpectedAnswer
from haystack.units import format_size
from tools.check import Checked
from tools.control import Control
from tools.output import Output
from tools.view import ClusterView

SILENCE_SECONDS = 24 * 3600.0
"""How long a Store may be silent while it checks a volume or makes an index anew: it reads up to 8 TiB."""

POLL_SECONDS = 0.5


class Action(Enum):
    """MEND: damage, from another copy. INDEX: made anew from the volume."""

    MEND = "mend"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do with one copy, and in words."""

    checked: Checked
    action: Action
    words: str


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What can be done, and what cannot, with the reason."""

    steps: tuple[Step, ...]
    hopeless: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        steps = [{"name": one.checked.name, "action": one.action.value, "words": one.words} for one in self.steps]
        return {"steps": steps, "hopeless": list(self.hopeless)}


def make_plan(checked: Sequence[Checked], others: Mapping[int, int]) -> RepairPlan:
    """Return what to do about what was found.

    Parameters
    ----------
    others: by volume, how many copies there are that have everything.
    """
    steps: list[Step] = []
    hopeless: list[str] = []
    for one in checked:
        if one.ok:
            continue
        if one.error is not None:
            hopeless.append(f"{one.name}: could not be checked: {one.error}")
            continue
        damage = one.report.get("damage", [])
        if damage:
            _about_damage(one, damage, others, steps, hopeless)
        elif one.report.get("indexProblems"):
            steps.append(Step(one, Action.INDEX, f"{one.name}: make its index anew from the volume"))
        else:
            hopeless.append(f"{one.name}: {'; '.join(one.report.get('problems', []))}")
    return RepairPlan(tuple(steps), tuple(hopeless))


def _about_damage(
    one: Checked, damage: Sequence[Sequence[int]], others: Mapping[int, int], steps: list[Step], hopeless: list[str]
) -> None:
    size = format_size(sum(size_bytes for _, size_bytes in damage))
    places = "1 place" if len(damage) == 1 else f"{len(damage)} places"
    if one.copy is None:
        # Its index knows more than the volume does: making it anew would bring back what damaged needles superseded.
        hopeless.append(
            f"{one.name}: {size} in {places} are damaged; start its Store: if there are other copies, it mends this "
            "from them by itself"
        )
    elif others.get(one.copy[0], 1) > 1:
        steps.append(Step(one, Action.MEND, f"{one.name}: mend {size} in {places} from another copy"))
    else:
        hopeless.append(
            f"{one.name}: {size} in {places} are damaged, and there is no other copy; the photos there are lost, "
            "unless a backup has them"
        )


async def mend_copy(control: Control, view: ClusterView, step: Step) -> None:
    """Do one step on a running Store; returns when it is done. Raises as Control does."""
    assert step.checked.copy is not None
    volume, store_id = step.checked.copy
    store = view.store(store_id)
    if store is None:
        raise UnexpectedAnswer(f"{step.checked.name}: the Directory does not know where this Store is")
    if step.action is Action.INDEX:
        path = f"/admin/volumes/{volume}/index"
        await control.store(store.admin_url, "POST", path, {}, timeout_seconds=SILENCE_SECONDS)
        return
    path = f"/admin/volumes/{volume}/scrub"
    answer = await control.store(store.admin_url, "POST", path, {})
    while answer.get("running"):
        await asyncio.sleep(POLL_SECONDS)
        answer = await control.store(store.admin_url, "GET", path)


def mend_file(step: Step, output: Output) -> None:
    """Make the index of a volume anew that no Store has open. Raises HaystackError."""
    # Imported here: the engine brings LMDB and more, which other commands do not need.
    from haystack.volume import Volume
    from haystack.volume.names import index_files

    path = step.checked.path
    assert path is not None
    with _locked(path.parent):
        for index in list(index_files(path)):
            index.unlink()
        with output.progress(str(path), path.stat().st_size, "bytes") as bar, Volume.open(path, progress=bar.at) as one:
            for line in one.report.lines():
                output.note(f"{path}: {line}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a Store's data folder; another folder has none."""
    from haystack.store.folder_identity import IDENTITY_FILE
    from haystack.store.folder_lock import lock_folder

    if not (folder / IDENTITY_FILE).exists():
        yield
        return
    descriptor = lock_folder(folder)
    try:
        yield
    finally:
        os.close(descriptor)
