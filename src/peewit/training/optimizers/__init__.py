"""Optimisers in the exact forms that the recipes name."""
