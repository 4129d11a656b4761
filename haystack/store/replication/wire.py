"""How batches are addressed, signed and answered between workers. Pure: no I/O.

Hashing 200 KB by SHA-256 takes 0.12 ms on each side, which is a large part of what an upload costs. So the body of a
batch is not signed as other internal calls are. Instead a connection begins with ``POST /internal/session``, an
ordinary signed call by which both sides give a nonce; from these and the cluster's secret both make the session's key.
Each batch then carries ``X-Haystack-Frame: <session>:<counter>:<mac>``, where *mac* is HMAC-SHA256 by that key over the
counter, method, path with query, length, and the XXH3-128 of the body, whose seed is made from the key and never sent.

- Nobody without the secret can send a batch, or make one out of others: the hash of a body is never visible, and its
  seed is secret and differs in every session.
- A frame is accepted once, in its order, in its session: the counter must rise. A recorded one is refused, whenever
  and wherever it is sent again.
- XXH3 is no cryptographic hash. Who sits between two Stores and changes bytes of a body on their way has to guess a
  64-bit seed to keep the hash the same, and is told of each wrong guess by a closed connection; but there is no proof
  of that as there is for SHA-256. Such a person reads all photos anyway: put Stores that do not trust their network
  into a VPN.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import xxhash

from haystack.errors import AuthenticationError
from haystack.volume.layout import Buffer

FRAME_HEADER = "X-Haystack-Frame"
SESSION_PATH = "/internal/session"
NONCE = re.compile(r"[0-9a-f]{32,64}")

_FRAME = re.compile(r"([0-9a-f]{32}):([0-9]{1,15}):([0-9a-f]{64})")
_BATCH_PATH = re.compile(r"/internal/volumes/([1-9][0-9]{0,9})/batch")


def batch_target(volume: int, epoch: int, start: int, committed: int, generation: int) -> str:
    """Path and query of a batch.

    Parameters
    ----------
    start: where its bytes lie in the volume.
    committed: below this the sender knows all copies to be equal.
    generation: of the sender's file; offsets mean something else in another one.
    """
    return f"/internal/volumes/{volume}/batch?epoch={epoch}&from={start}&committed={committed}&generation={generation}"


def parse_batch_path(path: str) -> int | None:
    """The volume, when the path is that of a batch."""
    match = _BATCH_PATH.fullmatch(path)
    return int(match[1]) if match else None


@dataclass(slots=True)
class Session:
    """One side of a session.

    Parameters
    ----------
    id: 32 hex digits, given by the receiver.
    key, seed: see above.
    counter: of the last frame.
    """

    id: str
    key: bytes
    seed: int
    counter: int = 0

    @classmethod
    def made(cls, secret: bytes, session_id: str, sender_nonce: str, receiver_nonce: str) -> Session:
        """The session that both sides make from the secret and the two nonces."""
        text = f"batches\n{session_id}\n{sender_nonce}\n{receiver_nonce}".encode()
        key = hmac.digest(secret, text, "sha256")
        return cls(session_id, key, int.from_bytes(hmac.digest(key, b"seed", "sha256")[:8], "little"))

    def sign(self, method: str, target: str, body: Sequence[Buffer]) -> str:
        """The frame header of the next request."""
        self.counter += 1
        return f"{self.id}:{self.counter}:{self._mac(self.counter, method, target, body)}"

    def verify(self, counter: int, mac: str, method: str, target: str, body: Sequence[Buffer]) -> None:
        """Return when a frame is genuine and new. Raises AuthenticationError."""
        if not hmac.compare_digest(self._mac(counter, method, target, body), mac):
            raise AuthenticationError(f"wrong signature on {method} {target}")
        if counter <= self.counter:
            raise AuthenticationError(f"{method} {target} was received before (replayed)")
        self.counter = counter

    def _mac(self, counter: int, method: str, target: str, body: Sequence[Buffer]) -> str:
        digest = xxhash.xxh3_128(seed=self.seed)
        size_bytes = 0
        for piece in body:
            digest.update(piece)
            size_bytes += len(piece)
        text = f"{counter}\n{method}\n{target}\n{size_bytes}\n{digest.hexdigest()}".encode()
        return hmac.digest(self.key, text, "sha256").hex()


class Frame(NamedTuple):
    """What a frame header says."""

    session: str
    counter: int
    mac: str


def parse_frame(header: str | None) -> Frame:
    """Read a frame header. Raises AuthenticationError."""
    match = _FRAME.fullmatch(header or "")
    if match is None:
        raise AuthenticationError(f"a batch must be signed: header {FRAME_HEADER} is missing or malformed")
    return Frame(match[1], int(match[2]), match[3])


class Answer(NamedTuple):
    """What a peer has answered: HTTP status, and its JSON object (empty when it was none)."""

    status: int
    document: dict[str, Any]

    @property
    def tail(self) -> int | None:
        """The end of the peer's copy, when it told."""
        tail = self.document.get("tail")
        return tail if type(tail) is int and tail >= 0 else None

    @property
    def reason(self) -> str:
        """Why it refused: ``gap``, ``diverged``, ``epoch``, ``behind``, or an error in words."""
        return str(self.document.get("reason") or self.document.get("error") or f"status {self.status}")[:300]


_HEAD_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]{1,9})\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nConnection: close\r\n", re.IGNORECASE)
MAX_ANSWER_BYTES = 64 * 1024


class Received(NamedTuple):
    """An answer, and whether the connection can be used again."""

    answer: Answer
    keep: bool


def parse_answer(raw: bytes) -> Received | None:
    """The answer in what was received so far; None when it is not complete. Raises ValueError when it is none."""
    end = raw.find(_HEAD_END)
    if end < 0:
        if len(raw) > MAX_ANSWER_BYTES:
            raise ValueError("its answer has no end")
        return None
    head = raw[: end + 2]
    status, length = _STATUS.match(head), _LENGTH.search(head)
    if status is None or length is None or int(length[1]) > MAX_ANSWER_BYTES:
        raise ValueError("its answer is not that of a Store")
    body_start = end + len(_HEAD_END)
    if len(raw) < body_start + int(length[1]):
        return None
    try:
        document = json.loads(raw[body_start : body_start + int(length[1])])
    except ValueError:
        document = {}
    answer = Answer(int(status[1]), document if isinstance(document, dict) else {})
    return Received(answer, _CLOSE.search(head) is None)
