"""Training by time or to a target accuracy: measuring, planning, keeping to the plan."""
