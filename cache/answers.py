"""What a worker writes for a photo that is in memory: a Store's answer, and what a cache has to add to it."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Final

from cache.memory import Record
from haystack.http.connection import HttpConnection
from haystack.http.request import Request
from haystack.store.answer_plan import AnswerPlan, PhotoFacts, plan_answer, unsatisfiable

VIA: Final = b"Via: 1.1 haystack-cache\r\n"
HIT, MISS, STALE, PASS = b"hit", b"miss", b"stale", b"pass"
WARNING: Final = b'Warning: 110 haystack-cache "Response is Stale"\r\n'
"""No Store and no Directory can say whether the photo is still there (RFC 7234, 5.5.1)."""
ASK_AGAIN: Final = b"Cache-Control: no-cache\r\n"
ASK_AGAIN_PRIVATELY: Final = b"Cache-Control: private, no-cache\r\n"
"""Of what is stale: who keeps it for a year may keep what was deleted."""

_LASTING = re.compile(rb"^Cache-Control: [^\r]*\r\n", re.MULTILINE)


def fast_head(record: Record, how: bytes = HIT) -> bytes:
    """The head of a 200 for the whole photo, without its last lines. It is right for a second.

    Parameters
    ----------
    record: its head is the keeper's: a Store's, with ``Via``.
    """
    return b"%sX-Cache: %s\r\nAge: %d\r\n" % (record.head, how, age_seconds(record.stored_ms))


def age_seconds(stored_ms: int) -> int:
    """Seconds since the Store gave it."""
    return max(0, time.time_ns() // 1_000_000 - stored_ms) // 1000


def plan_for(request: Request, record: Record, private_until: int) -> AnswerPlan:
    """What to answer, as the Store would have done when it gave the photo: ``Age`` says how long ago that is.

    Parameters
    ----------
    private_until: the end of the request's signature, seconds since 1970; 0 for what everybody may see. What a
        signature lets be seen is given now, whenever the Store gave it.
    """
    facts = PhotoFacts(record.meta, record.checksum, record.time_ms, record.expires, record.data_bytes, private_until)
    return plan_answer(request, facts, time.time() if private_until else record.stored_ms / 1000)


def cache_lines(record: Record, how: bytes, private_until: int) -> bytes:
    """The header lines that a cache adds."""
    warning = WARNING if how is STALE else b""
    age = 0 if private_until else age_seconds(record.stored_ms)
    return b"%sX-Cache: %s\r\nAge: %d\r\n%s" % (VIA, how, age, warning)


def answer(connection: HttpConnection, request: Request, record: Record, how: bytes, private_until: int) -> int:
    """Answer with a complete photo; returns the bytes of the body.

    Parameters
    ----------
    record: protected at this moment.
    how: HIT, MISS or STALE.
    private_until: as of :func:`plan_for`.
    """
    plan = plan_for(request, record, private_until)
    lines = cache_lines(record, how, private_until)
    if how is STALE:
        plan = replace(plan, headers=_LASTING.sub(ASK_AGAIN_PRIVATELY if private_until else ASK_AGAIN, plan.headers))
    if plan.status == 416:
        connection.respond_error(416, unsatisfiable(record.data_bytes), plan.headers + lines)
        return 0
    pieces = record.pieces(plan.start, plan.end)
    connection.respond_gathered(plan.status, plan.headers + lines, pieces, lender=record)
    return 0 if connection.head_only else plan.end - plan.start
