"""A page of metrics in Prometheus' text format, as Stores and Caches serve it."""

from __future__ import annotations

from collections.abc import Iterable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, int | float]
"""Labels as they stand between the braces (empty for none), and the value."""


class MetricsPage:
    """Collects families of samples.

    Parameters
    ----------
    prefix: of all names.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lines: list[str] = []

    def counter(self, name: str, help_text: str, samples: Iterable[Sample]) -> None:
        """A family of counters; ``_total`` is put behind its name."""
        self._family(name + "_total", help_text, "counter", samples)

    def gauge(self, name: str, help_text: str, samples: Iterable[Sample]) -> None:
        """A family of gauges."""
        self._family(name, help_text, "gauge", samples)

    def histogram(self, name: str, help_text: str, series: Iterable[tuple[str, list[int], int]], label: str) -> None:
        """A histogram.

        Parameters
        ----------
        series: label value, counts by power of two of microseconds (not summed up), sum in microseconds.
        """
        self._head(name, help_text, "histogram")
        for value, buckets, sum_microseconds in series:
            labels = f'{label}="{value}"'
            count = 0
            for exponent, bucket in enumerate(buckets[:-1]):
                count += bucket
                self._line(f"{name}_bucket", f'{labels},le="{2**exponent / 1e6!r}"', count)
            count += buckets[-1]
            self._line(f"{name}_bucket", f'{labels},le="+Inf"', count)
            self._line(f"{name}_sum", labels, sum_microseconds / 1e6)
            self._line(f"{name}_count", labels, count)

    def bytes(self) -> bytes:
        """The page so far."""
        return ("\n".join(self._lines) + "\n").encode()

    def _family(self, name: str, help_text: str, kind: str, samples: Iterable[Sample]) -> None:
        self._head(name, help_text, kind)
        for labels, value in samples:
            self._line(name, labels, value)

    def _head(self, name: str, help_text: str, kind: str) -> None:
        self._lines.append(f"# HELP {self._prefix}{name} {help_text}")
        self._lines.append(f"# TYPE {self._prefix}{name} {kind}")

    def _line(self, name: str, labels: str, value: int | float) -> None:
        self._lines.append(
            f"{self._prefix}{name}{{{labels}}} {value!r}" if labels else f"{self._prefix}{name} {value!r}"
        )


def escape_label(text: str) -> str:
    """A text as a label's value."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
