"""Transfer learning: features of a pretrained network, computed once, and the layer fitted to them.

``engine.py``
    Computes features with the fastest engine that is installed.
``cache.py``, ``features.py``
    Features on disk by the content of the pictures, and of whole data sets.
``head.py``
    The linear layer that classifies by them.
"""
