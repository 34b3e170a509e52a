"""A classifier on the features of an image encoder that is not trained."""

from __future__ import annotations

import torch
from torch import nn

from peewit.models.encoders.encoder import Encoder


class EncoderNetwork(nn.Module):
    """An image encoder, which no gradient passes, and a linear layer for one's own classes.

    Parameters
    ----------
    encoder : Encoder
        It is not among the weights: its file is kept beside them.
    classes : int
        The number of outputs.
    """

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, classes, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of whole images, float32, (N, 3, H, W) -> (N, features)."""
        prepared = x.detach().float().permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(self.encoder.features(prepared))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``x``, float32, (N, 3, H, W) -> (N, classes)."""
        logits: torch.Tensor = self.head(self.features(x))
        return logits
