"""Predictions of a trained network for new pictures, by the fastest engine."""
