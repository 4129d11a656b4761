"""``haystack restore``: a cluster made of what `haystack backup` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from directory.snapshots.files import checksum_of
from directory.storage.restored import read_contents
from haystack.errors import FolderError
from haystack.units import format_size
from tools.app import EXIT_FAILED, App, json_option, pass_app
from tools.backup_files import BackupFolder, Manifest
from tools.folders import require_empty
from tools.plans import NOTHING_CHANGED, apply_option
from tools.restoring import RestorePlan, check_room, make_plan, restore, verify_volume

Problems = dict[str, list[str]]
"""By volume file, what is wrong with it."""


@click.command("restore")
@click.argument("source", metavar="SOURCE", type=click.Path(file_okay=False, exists=True, path_type=Path))
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Empty folder, or one to be made, for the Directory and all Stores.",
)
@click.option(
    "--verify", is_flag=True, help="Read every photo again: of what was restored, or of SOURCE without --data."
)
@apply_option
@json_option
@pass_app
def restore_command(app: App, source: Path, data: Path | None, verify: bool, apply_it: bool) -> int:
    """Make a Directory's folder and the Stores' data folders from the backup in SOURCE. Shows the plan first.

    Afterwards `haystack up --data DIR` starts the cluster on this machine; or bring each folder to its machine, and
    start `haystack directory` and `haystack store` there. Stores keep their ids and their volumes, and may have other
    addresses. Without --data the backup is only looked at, and with --verify read and verified.

    The exit code is 1 when --verify finds anything wrong.
    """
    folder = BackupFolder(source)
    manifest = folder.read()
    if manifest is None:
        raise FolderError(f"{source}: has no complete backup (backup.json is missing)")
    plan = make_plan(manifest, read_contents(_checked_storage(folder, manifest)))
    if data is not None:
        require_empty(data, "restoring begins")
        check_room(plan, data)
    _say(app, plan, data)
    done = apply_it and data is not None
    problems: Problems = {}
    if data is not None and apply_it:
        with app.output.progress("restore", plan.size_bytes, "bytes") as bar:
            restore(plan, folder, data, bar.advance)
    if verify and (done or data is None):
        problems = _verify(app, plan, folder, data)
    app.output.document(_document(plan, data, applied=done, verified=verify, problems=problems))
    _say_end(app, plan, data, done=done, verified=verify, problems=problems)
    return EXIT_FAILED if problems else 0


def _checked_storage(folder: BackupFolder, manifest: Manifest) -> Path:
    path = folder.path / manifest.directory_file
    try:
        is_right = path.stat().st_size == manifest.directory_bytes and checksum_of(path) == manifest.directory_checksum
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {error.strerror}; the backup is not complete") from error
    if not is_right:
        raise FolderError(
            f"{path}: is not as it was written. The volumes may be sound all the same: put them into data folders of "
            "Stores, and `haystack directory rebuild` makes the Directory anew"
        )
    return path


def _verify(app: App, plan: RestorePlan, folder: BackupFolder, data: Path | None) -> Problems:
    if data is None:
        files = [(folder.volume(saved.file), saved) for saved in plan.manifest.volumes.values()]
    else:
        files = [(data / one.name / f"{saved.volume}.vol", saved) for one in plan.stores for saved in one.volumes]
    problems = {}
    with app.output.progress("verify", sum(saved.size_bytes for _, saved in files), "bytes") as bar:
        for path, saved in files:
            if found := verify_volume(path, saved, bar.advance):
                problems[str(path)] = found
    return problems


def _say(app: App, plan: RestorePlan, data: Path | None) -> None:
    out, manifest = app.output, plan.manifest
    bytes_ = sum(one.size_bytes for one in manifest.volumes.values())
    out.say(f"Backup of cluster {manifest.cluster_id}: {len(manifest.volumes)} volumes, {format_size(bytes_)}.")
    for volume, saved in manifest.volumes.items():
        if saved.damage:
            out.note(f"haystack: volume {volume}: {sum(size for _, size in saved.damage)} bytes were damaged already.")
    if data is None:
        return
    out.say(f"  1. {data / 'directory'}: the Directory, {format_size(manifest.directory_bytes)}")
    for number, one in enumerate(plan.stores, 2):
        size = format_size(sum(saved.size_bytes for saved in one.volumes))
        document = one.document
        was = f"{document.url} in rack {document.rack} of data center {document.data_center}"
        out.say(f"  {number}. {data / one.name}: {len(one.volumes)} volumes, {size}; it was Store {was}")


def _say_end(app: App, plan: RestorePlan, data: Path | None, *, done: bool, verified: bool, problems: Problems) -> None:
    out = app.output
    for path, found in problems.items():
        for problem in found:
            out.note(f"haystack: {path}: {problem}")
    if verified and (done or data is None) and not problems:
        out.say("Every photo was verified.")
    if data is None:
        return
    if not done:
        out.note(NOTHING_CHANGED)
        return
    out.say(f"Restored. Start it with: haystack up --data {data}")
    if plan.layout is None and plan.stores:
        out.note(
            "haystack: the Stores were in racks that `haystack up` does not make: start each `haystack store` with the "
            "--rack and --data-center that are told above."
        )


def _document(
    plan: RestorePlan, data: Path | None, *, applied: bool, verified: bool, problems: Problems
) -> dict[str, Any]:
    return {
        "clusterId": plan.manifest.cluster_id,
        "takenMs": plan.manifest.taken_ms,
        "volumes": len(plan.manifest.volumes),
        "sizeBytes": plan.size_bytes,
        "data": str(data) if data is not None else None,
        "stores": [
            {
                "folder": one.name,
                "storeId": one.document.store_id,
                "was": one.document.url,
                "dataCenter": one.document.data_center,
                "rack": one.document.rack,
                "volumes": [saved.volume for saved in one.volumes],
            }
            for one in plan.stores
        ],
        "applied": applied,
        "verified": verified and (applied or data is None),
        "problems": problems,
    }
