"""The outbox against a model, with a crash (closed, and opened anew) between any two calls."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from frontend.intake.outbox import INTENDED, PUBLISHED, STORED, Note, Outbox
from haystack.errors import DiskError

TICKETS = st.integers(0, 5).map(lambda number: bytes([number]) * 16)


class OutboxModel(RuleBasedStateMachine):
    """Ticket → state, record, attempts, when to try again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.outbox = Outbox(Path(self.folder.name) / "outbox.sqlite")
        self.model: dict[bytes, tuple[int, str, int, int]] = {}

    def teardown(self) -> None:
        self.outbox.close()
        self.folder.cleanup()

    @rule(ticket=TICKETS, record=st.sampled_from(["a", "b", "c"]))
    def intend(self, ticket: bytes, record: str) -> None:
        self.outbox.intend(Note(ticket, 1000 + ticket[0], INTENDED, record))
        state, _, attempts, retry = self.model.get(ticket, (INTENDED, "", 0, 0))
        if state == INTENDED:
            self.model[ticket] = INTENDED, record, attempts, retry

    @rule(ticket=TICKETS)
    def stored(self, ticket: bytes) -> None:
        if self.model.get(ticket, (None,))[0] != INTENDED:
            with pytest.raises(DiskError):
                self.outbox.stored(ticket)
            return
        self.outbox.stored(ticket)
        self.model[ticket] = STORED, *self.model[ticket][1:]

    @rule(ticket=TICKETS)
    def published(self, ticket: bytes) -> None:
        if self.model.get(ticket, (None,))[0] == STORED:
            self.outbox.published(ticket)
            self.model[ticket] = PUBLISHED, *self.model[ticket][1:]

    @rule(ticket=TICKETS, now_ms=st.integers(0, 10**6))
    def failed(self, ticket: bytes, now_ms: int) -> None:
        note = self.outbox.find(ticket)
        if note is not None and note.state == STORED:
            self.outbox.failed(note, now_ms)
            state, record, attempts, _ = self.model[ticket]
            self.model[ticket] = state, record, attempts + 1, now_ms + min(300_000, 250 * 2 ** min(attempts, 12))

    @rule(ticket=TICKETS)
    def forget(self, ticket: bytes) -> None:
        self.outbox.forget(ticket)
        if self.model.get(ticket, (None,))[0] == INTENDED:
            del self.model[ticket]

    @rule(now=st.integers(999, 1010))
    def forget_expired(self, now: int) -> None:
        self.outbox.forget_expired(now)
        old = [ticket for ticket, (state, *_) in self.model.items() if state == PUBLISHED and 1000 + ticket[0] <= now]
        for ticket in old:
            del self.model[ticket]

    @rule()
    def crash(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(Path(self.folder.name) / "outbox.sqlite")

    @rule(now_ms=st.integers(0, 10**6), limit=st.integers(1, 4))
    def due(self, now_ms: int, limit: int) -> None:
        found = [note.ticket for note in self.outbox.due(now_ms, limit)]
        waiting = {ticket: one[3] for ticket, one in self.model.items() if one[0] == STORED and one[3] <= now_ms}
        assert len(found) == len(set(found)) == min(limit, len(waiting))
        assert [waiting[ticket] for ticket in found] == sorted(waiting.values())[:limit]

    @invariant()
    def same(self) -> None:
        for number in range(6):
            ticket = bytes([number]) * 16
            note = self.outbox.find(ticket)
            known = self.model.get(ticket)
            assert (note is None) == (known is None)
            if note is not None and known is not None:
                assert (note.state, note.record, note.attempts, note.expires) == (*known[:3], 1000 + number)
        states = [state for state, *_ in self.model.values()]
        assert len(self.outbox.intended()) == states.count(INTENDED)
        assert self.outbox.unpublished() == states.count(STORED)
        retries = [retry for state, _, _, retry in self.model.values() if state == STORED]
        assert self.outbox.next_ms() == min(retries, default=None)


TestOutbox = OutboxModel.TestCase
TestOutbox.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_a_disk_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").mkdir()
    with pytest.raises(DiskError, match="outbox.sqlite"):
        Outbox(tmp_path / "outbox.sqlite")
    (tmp_path / "rubbish.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(DiskError, match="rubbish.sqlite"):
        Outbox(tmp_path / "rubbish.sqlite")
