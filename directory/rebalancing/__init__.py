"""Evening out load and fill: plans, their runs, and the log of what was decided and why."""
