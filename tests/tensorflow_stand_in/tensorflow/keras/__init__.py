"""The loss that the tutorial uses."""

from types import SimpleNamespace

losses = SimpleNamespace(SparseCategoricalCrossentropy=lambda from_logits: ("loss", from_logits))
