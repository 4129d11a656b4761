"""How likely it is that photos are lost: what was seen, and what follows from it for what is too rare to be seen.

A volume is lost when all its copies die before repair has made one of them anew. With good repair that never happens in
a simulation, and "0 of 120,000" says little. But volumes that lack a copy are seen often, and for each moment of theirs
the chance that it goes on to the end is known: the rates at which the disks of the copies that are left die. So losses
are counted at several depths:

- depth 0: volumes that were lost;
- depth r: all moments in which a volume had r copies left, each with r! · h1 · … · hr · T^(r-1): the chance, each
  second, that one of them dies, another one before that is repaired, and so on, with T the mean time of a repair;
- depth n, all copies: the closed formula N · n! · h^n · T^(n-1) for machines that die independently of each other, all
  at the same rate.

The deeper, the fewer assumptions and the wider the interval. What came of one incident (a machine that died takes many
volumes along) is one draw; the interval is that of a compound Poisson process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import exp, factorial, lgamma, log, prod, sqrt

CONFIDENCE = 0.95

_Growing = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected number of lost volumes, with the bounds of its 95 % confidence interval.

    Parameters
    ----------
    depth: copies left at the moments that it is made from.
    seen: how many such moments there were.
    """

    depth: int
    seen: int
    losses: float
    least: float
    most: float

    @property
    def chance(self) -> float:
        """The chance that anything is lost at all, were losses independent; at most that when they come together."""
        return 1 - exp(-self.losses)


@dataclass(slots=True)
class Exposure:
    """Moments in which volumes had so many copies left."""

    seen: int = 0
    seconds: float = 0.0
    by_incident: dict[int, float] = field(default_factory=dict)
    """Expected ends, but for the power of the repair time, by what began it."""

    def add(self, seconds: float, rate: float, incident: int) -> None:
        """Add one volume's time in this state."""
        self.seen += 1
        self.seconds += seconds
        self.by_incident[incident] = self.by_incident.get(incident, 0.0) + seconds * rate

    def estimate(self, depth: int, repair_seconds: float) -> Estimate:
        """Return what follows from these moments."""
        scale = repair_seconds ** (depth - 1)
        losses = sum(self.by_incident.values()) * scale
        spread = sqrt(sum(value * value for value in self.by_incident.values())) * scale
        if not self.by_incident:
            return Estimate(depth, 0, 0.0, 0.0, float("inf"))
        # On the scale of logarithms: what is above 0 stays above 0.
        width = exp(min(700.0, 1.96 * spread / losses)) if losses else 1.0
        return Estimate(depth, self.seen, losses, losses / width, losses * width)


def chain_rate(rates: Sequence[float]) -> float:
    """Return r! · h1 · … · hr for copies that die at these rates, per second each."""
    return factorial(len(rates)) * prod(rates)


def independent(volume_seconds: float, copies: int, rate: float, repair_seconds: float) -> Estimate:
    """Return the closed formula: volumes of so many copies, each of which dies at a rate per second."""
    losses = volume_seconds * factorial(copies) * rate**copies * repair_seconds ** (copies - 1)
    return Estimate(copies, 0, losses, losses, losses)


def counted(losses: int) -> Estimate:
    """Return the exact interval of a Poisson count."""
    tail = (1 - CONFIDENCE) / 2
    least = _solve(lambda mean: 1 - poisson_at_most(losses - 1, mean), tail, losses) if losses else 0.0
    most = _solve(lambda mean: 1 - poisson_at_most(losses, mean), 1 - tail, losses)
    return Estimate(0, losses, float(losses), least, most)


def share_bounds(hits: int, runs: int) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a share of which ``hits`` of ``runs`` were seen."""
    tail = (1 - CONFIDENCE) / 2
    least = 0.0 if hits == 0 else _bisect(lambda share: 1 - _binomial_at_most(hits - 1, runs, share), tail, 0.0, 1.0)
    most = 1.0 if hits == runs else _bisect(lambda share: 1 - _binomial_at_most(hits, runs, share), 1 - tail, 0.0, 1.0)
    return least, most


def poisson_at_most(count: int, mean: float) -> float:
    """Return the chance that a Poisson number of this mean is at most ``count``."""
    if count < 0:
        return 0.0
    if mean <= 0:
        return 1.0
    return min(1.0, sum(exp(k * log(mean) - mean - lgamma(k + 1)) for k in range(count + 1)))


def _binomial_at_most(count: int, runs: int, share: float) -> float:
    if share <= 0:
        return 1.0
    if share >= 1:
        return 0.0 if count < runs else 1.0
    terms = (
        exp(lgamma(runs + 1) - lgamma(k + 1) - lgamma(runs - k + 1) + k * log(share) + (runs - k) * log(1 - share))
        for k in range(count + 1)
    )
    return min(1.0, sum(terms))


def _solve(growing: _Growing, value: float, near: int) -> float:
    return _bisect(growing, value, 0.0, 4.0 * near + 20.0)


def _bisect(growing: _Growing, value: float, low: float, high: float) -> float:
    for _ in range(200):
        middle = (low + high) / 2
        if growing(middle) < value:
            low = middle
        else:
            high = middle
    return (low + high) / 2
