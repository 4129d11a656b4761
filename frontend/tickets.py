"""Tickets: what lets somebody upload one photo straight to a storage machine.

The front end gives a ticket out, the intake of the storage machine takes it: signed with a key made from the cluster's
secret, bound to one fid, owner and size, good until it expires, and once (the intake remembers those it has taken). All
that the photo's record will need is in it, so the intake asks nobody.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgpack

from frontend.visibility import Visibility
from haystack.errors import HaystackError, InvalidFid
from haystack.fid import Fid

_PURPOSE = b"haystack ticket key 1"
_MAC_BYTES = 32
_VERSION = 1
ID_BYTES = 16
MAX_TICKET_TEXT = 16 * 1024
MAX_TAGS = 30


class TicketRefused(HaystackError):
    """The ticket is none, was changed, has expired, is for another machine, or was used."""

    http_status = 403


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to upload one photo.

    Parameters
    ----------
    id: random, names the ticket.
    fid: of the photo's original; it is assigned to nobody else.
    owner_id, owner_name, owner_shown: who uploads it: id, user name, and the name that is shown.
    size_bytes: exactly so many bytes come.
    expires: seconds since 1970.
    name: of the file.
    title, caption, tags, visibility: for the photo's record.
    keep_place: whether the place in the EXIF may be kept in the record.
    keep_untouched: whether the upload itself is stored, too.
    """

    id: bytes
    fid: str
    owner_id: int
    owner_name: str
    owner_shown: str
    size_bytes: int
    expires: int
    name: str = ""
    title: str = ""
    caption: str = ""
    tags: tuple[str, ...] = ()
    visibility: int = int(Visibility.PUBLIC)
    keep_place: bool = True
    keep_untouched: bool = False


class TicketOffice:
    """Gives out tickets, and checks those that others gave out.

    Parameters
    ----------
    secret: of the cluster.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, _PURPOSE, hashlib.sha256)

    def issue(self, ticket: Ticket) -> str:
        """The ticket as text, for a header ``Authorization: Bearer …``."""
        body = bytes(msgpack.packb([_VERSION, list(asdict(ticket).values())]))
        return _text(body + hmac.digest(self._key, body, hashlib.sha256))

    def check(self, text: str, now_seconds: float) -> Ticket:
        """The ticket that a text is. Whether it was used before is for the caller to know.

        Raises
        ------
        TicketRefused: it is none of ours, or has expired.
        """
        raw = _bytes(text)
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not hmac.compare_digest(hmac.digest(self._key, body, hashlib.sha256), mac):
            raise TicketRefused("this is no ticket of this cluster; ask the front end for another one")
        ticket = _ticket(body)
        if now_seconds >= ticket.expires:
            raise TicketRefused("the ticket has expired; ask the front end for another one")
        return ticket


def _ticket(body: bytes) -> Ticket:
    """What was signed, of whatever release."""
    try:
        version, values = msgpack.unpackb(body, raw=False)
        if version != _VERSION:
            raise TicketRefused(f"the ticket has version {version}; this intake takes {_VERSION}")
        names = [field.name for field in fields(Ticket)]
        found: dict[str, Any] = dict(zip(names, values, strict=True))
        found["tags"] = tuple(found["tags"])
        ticket = Ticket(**found)
        Fid.parse(ticket.fid)
        Visibility(ticket.visibility)
    except (ValueError, TypeError, InvalidFid) as error:
        raise TicketRefused("the ticket cannot be read; ask the front end for another one") from error
    return ticket


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    if len(text) > MAX_TICKET_TEXT or not text.isascii():
        raise TicketRefused("this is no ticket")
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise TicketRefused("this is no ticket") from None
    if len(raw) <= _MAC_BYTES or _text(raw) != text:
        raise TicketRefused("this is no ticket")
    return raw
