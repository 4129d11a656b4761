"""What a worker gets from its supervisor, and how often the supervisor does what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from haystack.config import StoreSettings
from haystack.worker_settings import NodeWorkerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings(NodeWorkerSettings):
    """Settings of one worker.

    Parameters
    ----------
    worker: number of this worker, from 0; its region in the control block.
    workers: how many there are.
    store_id: UUID of the Store.
    folders: data folders in the order in which the control block numbers them; those that failed are among them.

    The others are as in :class:`haystack.config.StoreSettings`.
    """

    workers: int
    store_id: str
    folders: tuple[Path, ...]
    durability: Literal["fsync", "os"]
    directories: tuple[str, ...]
    public_url: str | None
    max_photo_bytes: int
    max_volume_bytes: int
    upload_memory_bytes: int
    upload_memory_total_bytes: int
    trash_retention_seconds: float

    @classmethod
    def of_store(
        cls, store: StoreSettings, *, port: int, worker: int, store_id: str, folders: Sequence[Path] | None = None
    ) -> WorkerSettings:
        """Settings of worker number ``worker`` of a Store that listens on ``port``.

        Parameters
        ----------
        folders: the data folders with all links resolved; by default those of ``store`` as they are.
        """
        return cls.of_node(
            store,
            port=port,
            worker=worker,
            workers=store.worker_count,
            store_id=store_id,
            folders=tuple(folders if folders is not None else (path.absolute() for path in store.data)),
        )

    @classmethod
    def _decoded(cls, document: dict[str, Any]) -> dict[str, Any]:
        # A class with slots is made anew by its decorator, so super() without arguments is another one's.
        return super(WorkerSettings, cls)._decoded(document) | {
            "folders": tuple(Path(path) for path in document["folders"]),
            "directories": tuple(document["directories"]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often the supervisor does what it does, and its limits. Production has the defaults; tests are in a hurry.

    Parameters
    ----------
    tick_seconds: how often volumes are looked at (state, sizes, what was appended).
    tail_poll_seconds: the least time between two looks at what is new in the control block.
    checkpoint_idle_seconds: a volume that nobody appended to for so long is checkpointed.
    checkpoint_most_seconds: a volume that is never idle is checkpointed after so long.
    probe_seconds: how often a data folder's free space and health are looked at.
    probe_timeout_seconds: a data folder that does not answer for so long has failed.
    ready_grace_seconds: how long the ready message waits for recoveries, once all workers listen.
    restart_first_seconds, restart_most_seconds: pause before a dead worker is started again; it doubles every time.
    worker_stable_seconds: a worker that ran so long had nothing to do with the failure before.
    kill_margin_seconds: what a worker gets beyond its time for requests in flight before it is killed.
    directory_timeout_seconds: for one call to a Directory.
    retry_first_seconds, retry_most_seconds: pause before a failed call to a Directory is repeated; it doubles, with
        jitter.
    confirmed_save_seconds: how often ``confirmed.json`` is written at most.
    stop_confirm_seconds: time at a stop to tell the Directory of the last needles.
    scrub_look_seconds: how often to look for a volume that is to be scrubbed.
    scrub_rest_seconds: from the end of a volume's scrub to the begin of the next one.
    scrub_rest_broken_seconds: the same for a volume with damage that no copy could mend, when there are copies.
    scrub_save_seconds: how often ``scrub.json`` is written at most during a walk.
    """

    tick_seconds: float = 1.0
    tail_poll_seconds: float = 0.05
    checkpoint_idle_seconds: float = 5.0
    checkpoint_most_seconds: float = 300.0
    probe_seconds: float = 2.0
    probe_timeout_seconds: float = 60.0
    ready_grace_seconds: float = 5.0
    restart_first_seconds: float = 0.1
    restart_most_seconds: float = 10.0
    worker_stable_seconds: float = 60.0
    kill_margin_seconds: float = 2.0
    directory_timeout_seconds: float = 10.0
    retry_first_seconds: float = 0.2
    retry_most_seconds: float = 5.0
    confirmed_save_seconds: float = 1.0
    stop_confirm_seconds: float = 2.0
    scrub_look_seconds: float = 10.0
    scrub_rest_seconds: float = 7 * 24 * 3600.0
    scrub_rest_broken_seconds: float = 600.0
    scrub_save_seconds: float = 10.0


RESERVE_SHARE = 10
"""The reserve is never more than one tenth of the disk, so that a small disk can be used at all."""
