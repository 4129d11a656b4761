"""What a transfer of many files did, and how that is said at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haystack.units import format_duration, format_size
from tools.output import Output

MAX_FAILURES_KEPT = 1000
"""Failed files that are listed by name at the end; the others are counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not transferred."""

    path: str
    reason: str


@dataclass(slots=True)
class Report:
    """Counts of a transfer of many files."""

    files: int = 0
    size_bytes: int = 0
    known: int = 0
    """Left aside because an earlier run has transferred them."""
    known_bytes: int = 0
    no_images: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    aborted: str = ""
    """Why it stopped before its end; empty when it did not."""

    def fail(self, path: str, error: Exception | str) -> None:
        """Count a failure, and keep it for the list if there is room."""
        self.failed += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(Failure(path, reason_of(error)))

    @property
    def exit_code(self) -> int:
        """1 when anything was not transferred that should have been."""
        return 1 if self.failed or self.aborted else 0

    def document(self, manifest: Path | None, *, dry_run: bool) -> dict[str, Any]:
        """Return all of it as JSON. Rates are those of what was transferred now."""
        return {
            "dryRun": dry_run,
            "files": self.files,
            "bytes": self.size_bytes,
            "alreadyDone": self.known,
            "noImages": self.no_images,
            "failed": self.failed,
            "failures": [{"path": one.path, "error": one.reason} for one in self.failures],
            "aborted": self.aborted or None,
            "seconds": round(self.seconds, 3),
            "filesPerSecond": round(self.files / self.seconds, 1) if self.seconds else None,
            "bytesPerSecond": round(self.size_bytes / self.seconds) if self.seconds else None,
            "manifest": str(manifest) if manifest is not None else None,
        }

    def amount(self) -> str:
        """Return how much was transferred in words."""
        return f"{self.files:,} {'file' if self.files == 1 else 'files'}, {format_size(self.size_bytes)}"

    def rate(self) -> str:
        """Return time and rates in words, to stand behind the amount; empty when there is none."""
        if not self.files or not self.seconds:
            return ""
        files_rate, bytes_rate = self.files / self.seconds, int(self.size_bytes / self.seconds)
        return f" in {format_duration(self.seconds)} ({files_rate:,.0f} files/s, {format_size(bytes_rate)}/s)"

    def say_failures(self, output: Output) -> None:
        """Print what failed, and why it stopped if it did."""
        if self.failed:
            output.say(f"Failed: {self.failed:,}")
        for failure in self.failures:
            output.note(f"haystack: {failure.path}: {failure.reason}")
        if self.failed > len(self.failures):
            output.note(f"haystack: and {self.failed - len(self.failures):,} more")
        if self.aborted:
            output.note(f"haystack: {self.aborted}")


def reason_of(error: Exception | str) -> str:
    """Return a failure's reason; an operating system's without the path, which stands before it anyway."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def iso_time(seconds: float) -> str:
    """Return a time since 1970 as text in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
