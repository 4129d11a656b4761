"""The intake killed at every step: what was acknowledged is stored and published, and there is one record of it."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_harness import (
    DEADLINE_SECONDS,
    Frontend,
    Intake,
    LocalStore,
    alternate,
    bearer,
    store_and_frontend,
    ticket,
)
from pictures import file_of, soft

from frontend.records import RECORD
from frontend.tickets import Ticket

PHOTO = file_of(soft(200, 150))
STEPS = ("prepare", "intend", "write", "stored", "published")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalStore, Frontend]]:
    with store_and_frontend(tmp_path_factory.mktemp("crashes")) as pair:
        yield pair


def upload(intake: Intake, one: Ticket) -> int:
    """Status; 0 when the connection broke."""
    request = urllib.request.Request(intake.url + "/upload", PHOTO, bearer(one), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def upload_until_taken(intake: Intake, one: Ticket) -> int:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (status := upload(intake, one)) == 423:  # it is being found out what became of the first try
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return status


def require_one_photo(store: LocalStore, front: Frontend, one: Ticket) -> None:
    record = front.wait_for(one.fid)
    assert {told.fid for told in front.told if told.photo_id == record.photo_id} == {one.fid}
    for key in (0, 1, 14):
        assert store.status(alternate(one.fid, key), signed=False) == 200
    assert store.record(one.fid).exact_hash == record.exact_hash


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ("before", "after"))
def test_killed_at_a_step(tmp_path: Path, parts: tuple[LocalStore, Frontend], when: str, step: str) -> None:
    store, front = parts
    one = ticket(len(PHOTO))
    intake = Intake(tmp_path, store, front, die=f"{when} {step}")
    status = upload(intake, one)
    assert intake.wait() == -9
    intake.end()
    acknowledged = status == 201
    # Publishing goes on beside the answer, so a process that dies of it may have answered, or not yet.
    stored = step == "published" or (step, when) == ("stored", "after")
    assert stored or not acknowledged
    again = Intake(tmp_path, store, front)
    if stored or (step, when) in (("write", "after"), ("stored", "before")):
        # Its needles are there, so it is published, even when its client never comes again.
        front.wait_for(one.fid)
        assert upload_until_taken(again, one) == 200
    else:
        assert upload_until_taken(again, one) == 201
    require_one_photo(store, front, one)
    assert again.stop() == 0
    again.end()


def test_what_was_never_written_is_forgotten(tmp_path: Path, parts: tuple[LocalStore, Frontend]) -> None:
    store, front = parts
    one = ticket(len(PHOTO))
    intake = Intake(tmp_path, store, front, die="before write")
    assert upload(intake, one) == 0
    intake.wait()
    intake.end()
    again = Intake(tmp_path, store, front)
    other = ticket(len(PHOTO))
    assert upload(again, other) == 201
    front.wait_for(other.fid)
    assert again.stop() == 0
    again.end()
    assert store.status(alternate(one.fid, RECORD)) == 404
    assert one.fid not in [record.fid for record in front.told]


def test_a_photo_is_told_until_a_front_end_has_it(tmp_path: Path, parts: tuple[LocalStore, Frontend]) -> None:
    store, front = parts
    one = ticket(len(PHOTO))
    before = len(front.told)
    front.status = 503
    intake = Intake(tmp_path, store, front)
    assert upload(intake, one) == 201
    front.wait_told(before + 2)
    intake.kill()
    intake.end()
    again = Intake(tmp_path, store, front)
    front.wait_told(before + 3)
    front.status = 0
    require_one_photo(store, front, one)
    assert again.stop() == 0
    again.end()
