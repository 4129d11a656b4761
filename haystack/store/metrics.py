"""The metrics of a Store in Prometheus' text format, from the control block alone.

Any process of the Store gives the same page: the counters of all workers are summed, and sizes are what the supervisor
last saw.
"""

from __future__ import annotations

from collections.abc import Sequence

from haystack.metrics_page import MetricsPage, escape_label
from haystack.store.control import ControlBlock, SlotView
from haystack.store.control_cells import (
    STATUS_CELL,
    CompactionPhase,
    Counter,
    FolderCell,
    FolderState,
    Header,
    Histogram,
    Slot,
    VolumeCell,
    VolumeState,
)

PREFIX = "haystack_store_"

_METHODS = (
    ("GET", Counter.GET),
    ("HEAD", Counter.HEAD),
    ("PUT", Counter.PUT),
    ("DELETE", Counter.DELETE),
    ("other", Counter.OTHER),
)
_COUNTERS = (
    ("received_bytes", "Bytes of bodies received.", Counter.BYTES_IN),
    ("sent_bytes", "Bytes of bodies sent.", Counter.BYTES_OUT),
    ("connections", "Connections accepted.", Counter.CONNECTIONS_TOTAL),
    ("connections_refused", "Connections refused because there were too many.", Counter.CONNECTIONS_REFUSED),
    ("cold_reads", "Reads that had to wait for a disk.", Counter.COLD_READS),
    ("timeouts", "Connections closed because the client was too slow.", Counter.TIMEOUTS),
    ("aborted_uploads", "Uploads that the client broke off.", Counter.ABORTED_UPLOADS),
    ("spilled_uploads", "Uploads too large for memory, spilled to disk.", Counter.SPILLED_UPLOADS),
    ("damaged_reads", "Reads that met a needle with wrong bytes.", Counter.DAMAGED_READS),
    ("disk_errors", "Requests that failed because a disk did.", Counter.DISK_ERRORS),
    ("batches_sent", "Batches sent to other copies of volumes.", Counter.BATCHES_SENT),
    ("batch_bytes_sent", "Bytes of these batches.", Counter.BATCH_BYTES_SENT),
    ("batches_received", "Batches received from primaries of volumes.", Counter.BATCHES_RECEIVED),
    ("batch_bytes_received", "Bytes of these batches.", Counter.BATCH_BYTES_RECEIVED),
    ("copy_failures", "Times that a copy did not take a batch.", Counter.COPY_FAILURES),
    ("passed_on", "Requests passed on to the primary of their volume.", Counter.PASSED_ON),
    ("repaired_reads", "Reads that were answered from another copy, ours being damaged.", Counter.REPAIRED_READS),
)
_GAUGES = (
    ("open_connections", "Connections open now.", Counter.CONNECTIONS_OPEN),
    ("cached_entries", "Parsed needle entries cached by the workers.", Counter.CACHED_ENTRIES),
    ("upload_memory_bytes", "Memory held by uploads in progress.", Counter.UPLOAD_MEMORY_BYTES),
)
_OPERATIONS = (("read", Histogram.READ), ("write", Histogram.WRITE), ("delete", Histogram.DELETE))
_SLOT_GAUGES = (
    ("volume_max_bytes", "Size at which the volume takes no more photos.", Slot.MAX_BYTES),
    ("volume_size_bytes", "Size of the volume.", Slot.SIZE_BYTES),
    ("volume_live_needles", "Needles that can be read.", Slot.LIVE_COUNT),
    ("volume_live_bytes", "Bytes of needles that can be read.", Slot.LIVE_BYTES),
    ("volume_deleted_needles", "Needles deleted or overwritten.", Slot.DELETED_COUNT),
    ("volume_deleted_bytes", "Bytes that a compaction would free.", Slot.DELETED_BYTES),
    ("volume_index_bytes", "Size of the volume's index.", Slot.INDEX_BYTES),
    ("volume_recovery_damage_bytes", "Damaged bytes that recovery met when the Store started.", Slot.DAMAGE_BYTES),
)
_SCRUB_GAUGES = (
    ("volume_scrubbed_timestamp_seconds", "End of the last full scrub; 0 for never.", Slot.SCRUBBED_MS, 1000),
    ("volume_broken_bytes", "Bytes that are damaged and that no copy could mend.", Slot.BROKEN_BYTES, 1),
    ("volume_mended_ranges", "Damaged ranges that were mended from another copy.", Slot.MENDED, 1),
)
_VOLUME_COUNTERS = (
    ("volume_reads", "Needles read.", VolumeCell.READS),
    ("volume_read_bytes", "Bytes of photos read.", VolumeCell.BYTES_READ),
    ("volume_writes", "Needles written.", VolumeCell.WRITES),
    ("volume_written_bytes", "Bytes of photos written.", VolumeCell.BYTES_WRITTEN),
    ("volume_deletes", "Needles deleted.", VolumeCell.DELETES),
    ("volume_errors", "Requests that failed because of the volume.", VolumeCell.ERRORS),
)
_VOLUME_STATES = (VolumeState.RECOVERING, VolumeState.WRITABLE, VolumeState.READONLY, VolumeState.FAILED)


def render(control: ControlBlock, folders: Sequence[object] = ()) -> bytes:
    """The whole page.

    Parameters
    ----------
    folders: paths of the data folders by number; without them folders are left out.
    """
    page = MetricsPage(PREFIX)
    _requests(page, control)
    _processes(page, control)
    slots = list(control.slots())
    _volumes(page, control, slots)
    _compactions(page, control, slots)
    _folders(page, control, folders)
    return page.bytes()


def render_worker_page(control: ControlBlock, folders: Sequence[object] = ()) -> bytes:
    """The page that a worker serves: the same as the supervisor's."""
    return render(control, folders)


def _requests(page: MetricsPage, control: ControlBlock) -> None:
    page.counter(
        "requests", "Requests.", ((f'method="{name}"', control.counter(counter)) for name, counter in _METHODS)
    )
    page.counter(
        "responses",
        "Answers by HTTP status.",
        ((f'status="{status}"', control.counter(cell)) for status, cell in STATUS_CELL.items()),
    )
    page.histogram(
        "request_duration_seconds",
        "Time from a request's last byte to its answer.",
        ((name, *control.histogram(histogram)) for name, histogram in _OPERATIONS),
        "operation",
    )
    for name, help_text, counter in _COUNTERS:
        page.counter(name, help_text, [("", control.counter(counter))])
    waited = control.counter(Counter.COPY_WAIT_MICROSECONDS)
    page.counter("copy_wait_seconds", "Time that waves of uploads waited for other copies.", [("", waited / 1e6)])
    for name, help_text, counter in _GAUGES:
        page.gauge(name, help_text, [("", control.counter(counter))])


def _processes(page: MetricsPage, control: ControlBlock) -> None:
    running = sum(1 for worker in range(control.workers) if control.cells[control.worker_base(worker) + Counter.PID])
    page.gauge("workers", "Worker processes that run.", [("", running)])
    page.counter("worker_restarts", "Workers that died and were started again.", [("", control.cells[Header.RESTARTS])])
    page.gauge("ready", "1 when all volumes have been recovered.", [("", control.cells[Header.READY])])


def _volumes(page: MetricsPage, control: ControlBlock, slots: Sequence[SlotView]) -> None:
    page.gauge(
        "volume_state",
        "1 for the state that the volume is in.",
        (
            (f'volume="{view.volume}",state="{state.name.lower()}"', int(view.state is state))
            for view in slots
            for state in _VOLUME_STATES
        ),
    )
    for name, help_text, cell in _SLOT_GAUGES:
        page.gauge(
            name,
            help_text,
            ((f'volume="{view.volume}"', control.cells[control.slot_cell(view.slot, cell)]) for view in slots),
        )
    for name, help_text, cell, unit in _SCRUB_GAUGES:
        rows = ((f'volume="{one.volume}"', control.cells[control.slot_cell(one.slot, cell)] // unit) for one in slots)
        page.gauge(name, help_text, rows)
    page.counter(
        "volume_read_seconds",
        "Time spent on reads of the volume, waiting for its disk included.",
        (
            (f'volume="{view.volume}"', control.volume_sum(view.slot, VolumeCell.READ_MICROSECONDS) / 1e6)
            for view in slots
        ),
    )
    for name, help_text, volume_cell in _VOLUME_COUNTERS:
        page.counter(
            name,
            help_text,
            ((f'volume="{view.volume}"', control.volume_sum(view.slot, volume_cell)) for view in slots),
        )


def _compactions(page: MetricsPage, control: ControlBlock, slots: Sequence[SlotView]) -> None:
    cells = control.cells
    done, failed = cells[Header.COMPACTIONS], cells[Header.COMPACTIONS_FAILED]
    rows = [('outcome="done"', done), ('outcome="failed"', failed)]
    page.counter("compactions", "Compactions of copies of volumes by their end.", rows)
    page.counter("compactions_won_bytes", "Bytes that compactions have won.", [("", cells[Header.COMPACTED_BYTES])])
    pauses = cells[Header.COMPACTION_PAUSES_MICROSECONDS] / 1e6
    page.counter("compaction_pause_seconds", "Time for which compactions let nobody append.", [("", pauses)])
    longest = cells[Header.COMPACTION_LONGEST_PAUSE_MICROSECONDS] / 1e6
    page.gauge("compaction_longest_pause_seconds", "The longest of these times since the start.", [("", longest)])
    page.gauge(
        "volume_compaction",
        "1 for what a compaction of the volume is at; it is ready when it waits for the Directory's word.",
        (
            (
                f'volume="{view.volume}",state="{phase.name.lower()}"',
                int(cells[control.slot_cell(view.slot, Slot.COMPACTING)] == phase),
            )
            for view in slots
            for phase in CompactionPhase
            if phase is not CompactionPhase.NONE
        ),
    )


def _folders(page: MetricsPage, control: ControlBlock, folders: Sequence[object]) -> None:
    rows = [
        (
            f'folder="{escape_label(str(path))}"',
            [control.cells[control.folder_cell(number, cell)] for cell in FolderCell],
        )
        for number, path in enumerate(folders)
    ]
    page.gauge("folder_size_bytes", "Size of the disk.", ((label, row[FolderCell.TOTAL_BYTES]) for label, row in rows))
    page.gauge(
        "folder_free_bytes", "Free space on the disk.", ((label, row[FolderCell.FREE_BYTES]) for label, row in rows)
    )
    page.gauge(
        "folder_state",
        "1 for the state that the data folder is in.",
        (
            (f'{label},state="{state.name.lower()}"', int(row[FolderCell.STATE] == state))
            for label, row in rows
            for state in FolderState
        ),
    )
