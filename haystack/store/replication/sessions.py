"""Sessions of other Stores with this worker; see :mod:`haystack.store.replication.wire` for what they are."""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from haystack.errors import AuthenticationError, InvalidRequest
from haystack.security import Verifier
from haystack.store.replication.wire import NONCE, SESSION_PATH, Frame, Session, parse_frame
from haystack.volume.layout import Buffer

MAX_SESSIONS = 4096
"""Sessions that are remembered, those that were used last; who has lost its session begins another one."""


class Sessions:
    """All sessions of one worker, on its event loop.

    Parameters
    ----------
    secret: of the cluster; None takes unsigned batches.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret
        self._verifier = None if secret is None else Verifier(secret)
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, auth: str | None, body: bytes) -> dict[str, str]:
        """Answer a call of ``SESSION_PATH``. Raises AuthenticationError, InvalidRequest."""
        if self._secret is None or self._verifier is None:
            raise InvalidRequest("this Store has no secret, so there are no sessions: send batches unsigned")
        self._verifier.verify(auth, "POST", SESSION_PATH, body)
        theirs = _nonce_in(body)
        session_id, ours = secrets.token_hex(16), secrets.token_hex(16)
        self._sessions[session_id] = Session.made(self._secret, session_id, theirs, ours)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return {"session": session_id, "nonce": ours}

    def expect(self, header: str | None) -> Frame | None:
        """Look at a frame before its body; None when nothing is signed here. Raises AuthenticationError."""
        if self._secret is None:
            return None
        frame = parse_frame(header)
        session = self._sessions.get(frame.session)
        if session is None:
            raise AuthenticationError("this session is not known here; begin another one")
        if frame.counter <= session.counter:
            raise AuthenticationError("this batch was received before (replayed)")
        return frame

    def verify(self, frame: Frame | None, method: str, target: str, body: Sequence[Buffer]) -> None:
        """Return when the whole frame is genuine and new. Raises AuthenticationError."""
        if frame is None:
            return
        session = self._sessions.get(frame.session)
        if session is None:
            raise AuthenticationError("this session is not known here any more; begin another one")
        session.verify(frame.counter, frame.mac, method, target, body)
        self._sessions.move_to_end(frame.session)


def _nonce_in(body: bytes) -> str:
    try:
        nonce = json.loads(body)["nonce"]
        if isinstance(nonce, str) and NONCE.fullmatch(nonce):
            return nonce
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequest("the body must be a JSON object with a nonce") from error
    raise InvalidRequest("a nonce has 32 to 64 hex digits")
