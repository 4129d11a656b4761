"""Where load goes: the rebalance plan (docs/rebalancing.md). Pure; simulations drive it as the Directory does."""

from directory.decisions.rebalance.applying import apply_plan, holders_after
from directory.decisions.rebalance.cooling import CoolingLog
from directory.decisions.rebalance.planning import plan
from directory.decisions.rebalance.views import (
    Machine,
    MachineEffect,
    Plan,
    RebalanceSettings,
    Snapshot,
    Step,
    StepKind,
    Volume,
)

__all__ = [
    "CoolingLog",
    "Machine",
    "MachineEffect",
    "Plan",
    "RebalanceSettings",
    "Snapshot",
    "Step",
    "StepKind",
    "Volume",
    "apply_plan",
    "holders_after",
    "plan",
]
