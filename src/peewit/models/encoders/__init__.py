"""Image encoders in ONNX files: what such a file must be, and a network on their features.

``contents.py``
    The checks that need no inference, and the graph that is computed.
``encoder.py``
    An encoder in an engine: prepared pictures to features.
``trial.py``
    The first use of a file, in a child process with limits.
``network.py``
    The classifier: an encoder, and a linear layer on its features.
"""
