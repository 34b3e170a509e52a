"""Reject pictures of no class by the probability of their most probable one.

The threshold comes from held-out images, of which it accepts 95 %. The maximum probability is the
baseline of the field [1]_. The energy of the logits separates pictures of other data sets no better
(benchmarks/strangers.py), and exported files do not give it.

References
----------
.. [1] D. Hendrycks and K. Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
   Examples in Neural Networks", ICLR 2017 (arXiv 1610.02136).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.evaluation.inference import softmax

Floats = npt.NDArray[np.float32]

NONE = "none of these classes"
ACCEPTED = 0.95  # share of the held-out images
# One image is 5 % of 20
FEWEST = 20


def rejection(held_out: Floats, logits: Floats, labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the metric ``rejection``: the threshold, and what it does to the images of the test.

    Parameters
    ----------
    held_out : float32 array, shape (M, classes)
        Logits of images that the network was not trained on.
    logits : float32 array, shape (N, classes)
        Those of the final test.
    labels : int64 array, shape (N,)

    Returns
    -------
    dict
        ``threshold``, a probability: pictures whose most probable class has a lower one are
        rejected. ``images``: M. ``rejected``: the share of the N that is. ``accuracy``: that of the
        others, None if there are none. Empty if there are fewer than ``FEWEST`` held-out images.

    Examples
    --------
    >>> logits = np.log([[0.9, 0.1]] * 19 + [[0.6, 0.4]]).astype(np.float32)
    >>> found = rejection(logits, logits, np.zeros(20, np.int64))
    >>> found["images"], round(found["rejected"], 3), found["accuracy"]
    (20, 0.05, 1.0)
    """
    if len(held_out) < FEWEST:
        return {}
    surest, tested = (softmax(one).max(axis=1) for one in (held_out, logits))
    found = by_score(surest, tested, logits.argmax(axis=1) == labels)
    return {"images": len(held_out), **found}


def by_score(held_out: Floats, scores: Floats, right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return the threshold that accepts 95 % of the held-out images, and what it does to others.

    Parameters
    ----------
    held_out : float32 array, shape (M,)
        Scores of held-out images; lower ones are rejected.
    scores : float32 array, shape (N,)
        Those of the images of the final test.
    right : bool array, shape (N,)
        Whether they are classified correctly.

    Returns
    -------
    dict
        ``threshold``, ``rejected`` and ``accuracy``, as for ``rejection``.
    """
    threshold = float(np.quantile(held_out, 1 - ACCEPTED))
    accepted = scores >= threshold
    return {
        "threshold": threshold,
        "rejected": float(1 - accepted.mean()),
        "accuracy": float(right[accepted].mean()) if accepted.any() else None,
    }
