"""Grad-CAM heat maps: which regions of an image support a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.images.fitting import Region

if TYPE_CHECKING:
    import torch
    from torch import nn

# Colour map from cold to hot. Its luminance increases monotonically, so that it is readable with
# any colour vision and in greyscale.
RAMP = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def heat_maps(
    model: nn.Module,
    prepare: Callable[[npt.NDArray[Any]], torch.Tensor],
    images: npt.NDArray[Any],
    classes: npt.ArrayLike | None = None,
    part: Region | None = None,
) -> npt.NDArray[np.float32]:
    """Return a Grad-CAM heat map of each image: how much each pixel supports a class.

    The channels of the last feature map are summed, weighted by the mean gradient of the class's
    logit; negative values, evidence against the class, are set to 0. Source: R. R. Selvaraju et
    al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017, arXiv 1610.02391, equations 1 and 2.

    The map has the resolution of the last feature map (4 x 4 in the tutorial's network on CIFAR-10)
    and is upsampled bilinearly.

    Parameters
    ----------
    model : Module
        Left in evaluation mode.
    prepare : callable
        Returns the model's input for ``images``, float32 (N, C, h, w): ``Preprocessing.tensor``, or
        ``peewit.images.preprocessing.from_prepared``.
    images : array, shape (N, H, W, C)
    classes : int array, shape (N,), optional
        The class to explain for each image; by default the predicted class.
    part : Region, optional
        The part of each image that ``prepare`` makes the whole input: ``Preprocessing.region``. By
        default the image.

    Returns
    -------
    float32 array, shape (N, H, W)
        0 to 1, with 1 at the maximum of each image; all 0 if nothing supports the class, and
        outside of ``part``.

    Raises
    ------
    PeewitError
        The network has no feature map with more than one position.

    Examples
    --------
    >>> from peewit.models.registry import build
    >>> from peewit.images.preprocessing import Preprocessing
    >>> rule = Preprocessing(22, 22, 1, mean=(0.0,), std=(1.0,))
    >>> images = np.zeros((2, 30, 40, 1), np.uint8)
    >>> heat_maps(build("tutorial", (22, 22, 1), 3, seed=0), rule.tensor, images).shape
    (2, 30, 40)
    """
    import torch
    from torch.nn import functional as F

    model.eval()
    size = images.shape[1:3]
    part = part or Region(0, 0, *size)
    if not len(images):
        return np.empty((0, *size), np.float32)
    with torch.enable_grad():
        # so that there is a gradient even if all weights are frozen
        pixels = prepare(images).requires_grad_()
        logits, features = _with_features(model, pixels)
        chosen = logits.argmax(1) if classes is None else torch.tensor(np.asarray(classes))
        score = logits.gather(1, chosen.long()[:, None]).sum()
        # in evaluation mode images are independent: the gradient of the sum is that of each image
        (gradient,) = torch.autograd.grad(score, features)
    with torch.no_grad():
        weights = gradient.mean((2, 3), keepdim=True)  # (N, C, h, w) -> (N, C, 1, 1)
        maps = F.relu((weights * features).sum(1, keepdim=True))  # -> (N, 1, h, w)
        seen = (part.height, part.width)
        maps = F.interpolate(maps, seen, mode="bilinear", align_corners=False)[:, 0]
        # of a padded image, `top` and `left` are negative, and this cuts the padding off
        below, right = size[0] - part.top - part.height, size[1] - part.left - part.width
        maps = F.pad(maps, (part.left, right, part.top, below))
        # normalised after upsampling, which can change the maximum
        largest = maps.amax((1, 2), keepdim=True)
        maps = maps / largest.clamp_min(torch.finfo(maps.dtype).tiny)
    result: npt.NDArray[np.float32] = maps.numpy()
    return result


def overlay(
    image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32], strength: float = 0.7
) -> npt.NDArray[np.uint8]:
    """Blend a heat map over its image, converted to greyscale so that all colour is the map's.

    Parameters
    ----------
    image : uint8 array, shape (H, W, 1) or (H, W, 3)
    heat : float32 array, shape (H, W)
        From 0 to 1.
    strength : float
        Opacity of the heat map at its maximum, 0 to 1.

    Returns
    -------
    uint8 array, shape (H, W, 3)

    Examples
    --------
    >>> overlay(np.full((1, 2, 3), 99, np.uint8), np.array([[0, 1]], np.float32), 1.0).tolist()
    [[[99, 99, 99], [252, 255, 164]]]
    """
    grey = image.mean(axis=2, keepdims=True)
    stops = np.linspace(0, 1, len(RAMP))
    colours = np.stack([np.interp(heat, stops, channel) for channel in zip(*RAMP, strict=True)], 2)
    opacity = strength * heat[:, :, None]
    return np.asarray(np.rint(grey * (1 - opacity) + colours * opacity), dtype=np.uint8)


def _with_features(model: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits and the feature map for Grad-CAM.

    This is the output of the last layer with weights that still has spatial positions, after its
    activation but before any pooling, which would reduce the resolution. For a fused kernel, it is
    the output of the kernel.
    """
    import torch

    outputs: list[tuple[nn.Module, torch.Tensor]] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            outputs.append((module, output))

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    try:
        logits = model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    # the hook of a module runs after those of its children
    ran = {module for module, _ in outputs}
    weighted = [
        index
        for index, (module, _) in enumerate(outputs)
        if any(True for _ in module.parameters())
        and not any(part in ran for part in module.modules() if part is not module)
    ]
    if not weighted:
        raise PeewitError(
            "cannot compute a heat map", "no layer of the network has more than one position"
        )
    last = outputs[weighted[-1]][1]
    same_size = [map_ for _, map_ in outputs[weighted[-1] :] if map_.shape == last.shape]
    return logits, same_size[-1]
