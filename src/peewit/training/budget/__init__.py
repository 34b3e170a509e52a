"""Training by time or to an accuracy: measurement, plan, pace."""
