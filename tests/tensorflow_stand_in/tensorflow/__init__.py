"""A stub of TensorFlow for running the notebook without it: tests/test_notebooks.py.

It supports only the calls that the tutorial makes. Nothing is trained: the network is Peewit's own
with its initial weights, so that predictions and saved files are those of a real network.
"""

from tensorflow import keras as keras
