"""The networks: one architecture per file, and the registry that builds them by name.

``registry.py``
    The names of the networks, and ``build``.
``tutorial.py``, ``fast.py``
    The architectures; ``layers.py`` holds layers, ``whitening.py`` the first layer's filters.
``keras_weights.py``
    Weights in Keras's names, order and memory layout.
``trace.py``, ``flops.py``, ``explain.py``, ``summary.py``
    Statistics of any network: the calls of its layers, the FLOPs of a training step, and the layer
    table of ``peewit summary`` with its explanations.
"""
