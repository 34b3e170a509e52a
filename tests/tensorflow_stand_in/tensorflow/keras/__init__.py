"""The loss that the tutorial names."""

from types import SimpleNamespace

losses = SimpleNamespace(SparseCategoricalCrossentropy=lambda from_logits: ("loss", from_logits))
