"""The fast way of uploads: ``data_received`` with exactly one whole, plain PUT or POST.

The bytes are cut at the first CRLF and behind the first empty line into request line, header block and body. As with
the fast way of GET (see :mod:`haystack.http.connection`), the block must be one that the strict way has parsed before:
in a request that was HTTP/1.1, in origin form, keep-alive, with a Content-Length and without Expect, Upgrade or
Transfer-Encoding. The body must have exactly that length. The line must wholly match a pattern that no rule of
:mod:`haystack.http.head` refuses, which is the handler's business. Everything else goes the strict way, with the same
meaning: nothing is taken here that would be refused or framed differently there, for the reasons given for GET.

What is spared is a buffer, a request and a sink for each upload, and the walk through the connection's phases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haystack.http.outcomes import OutcomeConnection

if TYPE_CHECKING:
    from haystack.http.handler import Handler
    from haystack.http.server import Server

_END = b"\r\n\r\n"


class UploadingConnection(OutcomeConnection):
    """A connection that takes plain uploads which arrive in one piece."""

    __slots__ = ("_handler", "_upload_blocks")

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._handler: Handler = server.handler
        self._upload_blocks = server.upload_blocks

    def _take_upload(self, data: bytes) -> bool:
        """Give ``data`` to the handler if it is one plain upload; False: nothing has been done with it.

        Only called at the start of a request with nothing buffered, while output flows and the server is not stopping.
        """
        cut = data.find(b"\r\n")
        end = data.find(_END, cut) + len(_END)
        request = self._upload_blocks.get(data[cut:end])
        if request is None or len(data) - end != request.headers.content_length:
            return False
        if not self._handler.fast_put(self, data[:cut], request.headers, data[end:]):
            return False
        self._promise(request)
        return True
