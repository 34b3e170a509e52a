"""Answers of a trained network to new pictures, by the fastest engine."""
