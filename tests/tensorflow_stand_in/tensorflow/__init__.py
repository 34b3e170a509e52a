"""Stands in for TensorFlow in the notebook, where it is not installed: tests/test_notebooks.py.

It knows the calls that the tutorial makes and no others. Nothing is trained: the network is
Peewit's own with its first weights, so that what it answers and saves is a network's.
"""

from tensorflow import keras as keras
