"""Every bound that the HTTP server puts on what a client can make it hold, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one :class:`~haystack.http.server.Server` (that is, of one worker process).

    The size of a body is not here: each request's handler names it (``BodySink.max_bytes``).

    Parameters
    ----------
    max_header_bytes: request line and header lines together, with their line ends; more is 431.
    max_target_bytes: the request target (URL); more is 414.
    max_header_count: header lines; more is 431.
    max_trailer_bytes: trailer section of a chunked body (which is checked and ignored); more is 431.
    max_chunk_line_bytes: one chunk-size line with its extensions; more is 400.
    max_chunk_extension_bytes: all chunk extensions of one body; more is 400.
    max_connections: open connections; one more is answered 503 and closed.
    max_lingering_refusals: connections over the limit that may wait for their 503 to be read; more are reset.
    max_pipeline_bytes: received but not yet processed input of a connection, above which its socket is not read.
    max_requests_per_turn: pipelined requests answered in a row before other connections get their turn.
    write_buffer_bytes: unsent output of a connection above which handlers have to wait (``drain``). Older releases of
        uvloop also gather output up to here until the end of the loop's turn; 0 writes every answer at once.
    max_cached_blocks, max_cached_block_bytes: the cache of parsed header blocks.
    header_timeout_seconds: from the first byte of a request to the end of its header section; then 408.
    idle_timeout_seconds: without a request; then a silent close.
    stall_timeout_seconds: a body or an answer that does not move on by ``min_progress_bytes``; then 408 or a reset.
    min_progress_bytes: what counts as moving on.
    linger_timeout_seconds, linger_idle_seconds, max_linger_bytes: how long and how much input is discarded after a
        final answer, so that the client gets to read it.
    """

    max_header_bytes: int = 16 * 1024
    max_target_bytes: int = 8 * 1024
    max_header_count: int = 100
    max_trailer_bytes: int = 4 * 1024
    max_chunk_line_bytes: int = 256
    max_chunk_extension_bytes: int = 16 * 1024
    max_connections: int = 4096
    max_lingering_refusals: int = 64
    max_pipeline_bytes: int = 64 * 1024
    max_requests_per_turn: int = 64
    write_buffer_bytes: int = 0
    max_cached_blocks: int = 1024
    max_cached_block_bytes: int = 2 * 1024
    header_timeout_seconds: float = 10.0
    idle_timeout_seconds: float = 75.0
    stall_timeout_seconds: float = 30.0
    min_progress_bytes: int = 1024
    linger_timeout_seconds: float = 30.0
    linger_idle_seconds: float = 5.0
    max_linger_bytes: int = 128 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.max_target_bytes + self.max_cached_block_bytes + 64 > self.max_header_bytes:
            raise ValueError("max_header_bytes must hold max_target_bytes, max_cached_block_bytes and 64 bytes more")
        if self.max_pipeline_bytes < self.max_header_bytes:
            raise ValueError("max_pipeline_bytes must hold at least one header section (max_header_bytes)")
