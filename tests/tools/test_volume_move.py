"""``haystack volume move`` and its like: what is shown, waited for, and answered."""

from __future__ import annotations

import io
from typing import Any

import pytest

from haystack.client.errors import UnexpectedAnswer
from tools.output import Output
from tools.volume_move import line, parse_moves, wait_for_moves

MOVE = {
    "id": 3,
    "kind": "move",
    "volume": 7,
    "sourceUrl": "a:1",
    "targetUrl": "b:1",
    "state": "done",
    "copiedBytes": 2_000_000,
    "totalBytes": 2_000_000,
    "seconds": 4.0,
    "startedMs": 1,
    "error": "",
}


class FakeControl:
    """Answers with one list of moves after the other."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)

    async def directory(self, method: str, path: str) -> dict[str, Any]:
        assert (method, path) == ("GET", "/cluster/moves")
        return {"moves": self.answers.pop(0)}


async def _no_sleep(seconds: float) -> None:
    """Time does not matter here."""


async def test_it_waits_until_all_are_over_and_says_once_why_one_waits() -> None:
    waiting = MOVE | {"state": "waiting", "copiedBytes": 0, "error": "it is being compacted"}
    other = MOVE | {"id": 4, "state": "copying"}
    control = FakeControl([waiting, other], [waiting, other], [MOVE | {"state": "copying"}, other], [MOVE, other])
    stderr = io.StringIO()
    found = await wait_for_moves(Output(False, io.StringIO(), stderr), control, {3}, sleep=_no_sleep)  # type: ignore[arg-type]  # only what is asked of it
    assert found == [MOVE] and not control.answers
    assert stderr.getvalue().count("move 3 waits: it is being compacted") == 1


def test_how_a_move_ended_in_words() -> None:
    assert line(MOVE) == "Move 3 of volume 7: 1.91 MiB copied to b:1; all done in 4 s"
    assert line(MOVE | {"state": "failed", "error": "no room"}) == "Move 3 of volume 7 was failed: no room"
    assert "the copy at a:1 is gone" in line(MOVE | {"kind": "drop"})


def test_an_answer_that_is_none_is_told() -> None:
    for document in ({}, {"moves": [{"id": 1}]}, {"moves": 5}):
        with pytest.raises(UnexpectedAnswer):
            parse_moves(document)
