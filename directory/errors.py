"""What only the Directory refuses or reports, in the tree of :mod:`haystack.errors`."""

from __future__ import annotations

from haystack.errors import HaystackError


class NotSupported(HaystackError):
    """A well-formed request for something that this release cannot do."""

    http_status = 501


class NothingWritable(HaystackError):
    """No volume takes photos now; the message says why."""

    http_status = 503


class DirectoryBusy(HaystackError):
    """Too much is waiting already; the caller should try again later."""

    http_status = 503


class PhotoNotFound(HaystackError):
    """The Directory knows no photo with this id."""

    http_status = 404


class MembershipConflict(HaystackError):
    """A Store speaks for a cluster or a volume that is not its own."""

    http_status = 409


class NewerEpoch(HaystackError):
    """A Store knows a membership of a higher epoch than the Directory's. Never leaves the Directory."""

    http_status = 409

    def __init__(self, message: str, known_epoch: int) -> None:
        super().__init__(message)
        self.known_epoch = known_epoch


class OtherGeneration(HaystackError):
    """A Store has another generation of a volume than its new membership is of. Never leaves the Directory."""

    http_status = 409

    def __init__(self, message: str, generation: int) -> None:
        super().__init__(message)
        self.generation = generation


class NotPossibleNow(HaystackError):
    """What the operator asks for would do harm as things are; the message says why and what to do first."""

    http_status = 409


class StorageConflict(HaystackError):
    """A record changed between reading and writing it: read again, decide again. Never leaves the Directory."""

    http_status = 503
