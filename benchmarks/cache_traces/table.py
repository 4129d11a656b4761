"""The hit ratios as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cache_traces.replay import Result


@dataclass(frozen=True, slots=True)
class Row:
    """What one policy made of one trace.

    Parameters
    ----------
    share: size of the cache, of the trace's set.
    """

    trace: str
    share: float
    policy: str
    result: Result

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "trace": self.trace,
            "share": self.share,
            "policy": self.policy,
            "hitRatio": round(self.result.hit_ratio, 4),
            "byteHitRatio": round(self.result.byte_hit_ratio, 4),
            "recentHitRatio": round(self.result.recent_hit_ratio, 4) if self.result.recent else None,
        }


def markdown(rows: Sequence[Row]) -> str:
    """One line for each trace and size, one column for each policy: % of the requests / % of the bytes."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    lines = ["| trace | cache | " + " | ".join(policies) + " |", "|---" * (len(policies) + 2) + "|"]
    for trace, share in dict.fromkeys((row.trace, row.share) for row in rows):
        found = {row.policy: row.result for row in rows if (row.trace, row.share) == (trace, share)}
        cells = [_cell(found.get(policy)) for policy in policies]
        lines.append(f"| {trace} | {share:.0%} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def recent_markdown(rows: Sequence[Row]) -> str:
    """The same of photos that were at most a day old: % of the requests."""
    rows = [row for row in rows if row.result.recent]
    columns = list(dict.fromkeys((row.trace, row.share) for row in rows))
    lines = ["| at most a day old | " + " | ".join(f"{trace}, {share:.0%}" for trace, share in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for policy in dict.fromkeys(row.policy for row in rows):
        found = {(row.trace, row.share): row.result.recent_hit_ratio for row in rows if row.policy == policy}
        lines.append(f"| {policy} | " + " | ".join(f"{found[column]:.1%}" for column in columns) + " |")
    return "\n".join(lines)


def _cell(result: Result | None) -> str:
    return "" if result is None else f"{result.hit_ratio * 100:.1f} / {result.byte_hit_ratio * 100:.1f}"
