"""Every error that Haystack raises on purpose, as one tree.

A message says what happened, where, and what to do. ``http_status`` is the status that a server answers with;
``exit_code`` is what the command ends with. A plain ``HaystackError`` is never raised by itself.
"""

from __future__ import annotations


class HaystackError(Exception):
    """Base of all errors. Catch this to catch what Haystack refuses or reports."""

    http_status = 500
    exit_code = 1


class InvalidRequest(HaystackError):
    """The caller's input is malformed or out of range."""

    http_status = 400


class InvalidFid(InvalidRequest):
    """A text is not a well-formed fid or locator."""


class ConfigError(HaystackError):
    """A setting is unknown, malformed or contradicts another one."""

    exit_code = 2


class AuthenticationError(HaystackError):
    """An internal call is unsigned, wrongly signed, stale or replayed."""

    http_status = 401


class NeedleNotFound(HaystackError):
    """No such needle: unknown, deleted, or asked for with a wrong cookie (deliberately the same answer)."""

    http_status = 404


class VolumeNotFound(HaystackError):
    """This Store or Directory does not have the volume."""

    http_status = 404


class CookieMismatch(HaystackError):
    """An upload names an existing needle but not its cookie."""

    http_status = 409


class VolumeExists(HaystackError):
    """A volume with this id is there already, and it is another one."""

    http_status = 409


class TooLarge(HaystackError):
    """A photo or a request is larger than its limit."""

    http_status = 413


class VolumeUnavailable(HaystackError):
    """The volume cannot serve this now (recovering, failed, closed); another copy or a later try may."""

    http_status = 503


class VolumeMoved(VolumeUnavailable):
    """The volume was compacted meanwhile and is another file by now; open it anew and try again."""


class CompactionFailed(HaystackError):
    """A compaction was given up, and the volume is as it was."""

    http_status = 409


class VolumeReadOnly(HaystackError):
    """The volume takes no writes: full, marked, or opened read-only."""

    http_status = 409


class OutOfSpace(HaystackError):
    """The disk has no room for this write; nothing was stored."""

    http_status = 507


class DiskError(HaystackError):
    """The operating system failed to read or write a file."""

    http_status = 500


class FolderError(HaystackError):
    """A data folder cannot be used: locked, another Store's, not writable, damaged."""


class VolumeFileError(HaystackError):
    """Base of what can be wrong inside a volume file.

    Parameters
    ----------
    path: the volume file.
    offset: byte offset where it was noticed.
    problem: what was expected and what was found.
    """

    def __init__(self, path: str, offset: int, problem: str) -> None:
        super().__init__(f"{path}: at offset {offset} (0x{offset:x}): {problem}")
        self.path = path
        self.offset = offset
        self.problem = problem


class UnknownFormat(VolumeFileError):
    """The file is no volume, or of a format version that this release does not know."""


class DamagedNeedle(VolumeFileError):
    """Bytes of a needle do not agree with its checksum or its structure."""


class WrongNeedle(VolumeFileError):
    """A whole needle, but not the one that was asked for at this offset."""


class IndexDamaged(HaystackError):
    """The LMDB index cannot be trusted; it is rebuilt from the volume."""


class ProtocolError(InvalidRequest):
    """A request breaks the rules of HTTP, or a limit of the server; its connection is closed after the answer.

    Parameters
    ----------
    message: what is wrong, for the client.
    http_status: the status to answer with.
    kind: short name for counters: ``malformed``, ``too_large``, ``timeout``, ``unsupported``.
    """

    def __init__(self, message: str, http_status: int = 400, kind: str = "malformed") -> None:
        super().__init__(message)
        self.http_status = http_status
        self.kind = kind


class ClientGone(HaystackError):
    """The client closed its connection, or stopped reading, before the answer was written."""

    http_status = 499
