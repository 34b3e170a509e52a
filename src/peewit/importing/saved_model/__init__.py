"""TensorFlow SavedModel folders, parsed without TensorFlow.

``folder`` finds the model's configuration and its weights, ``checkpoint`` reads the weights,
``leveldb`` the checkpoint's index, ``protobuf`` the messages in these files, and ``crc32c``
computes their checksums. No code is run, and sizes in the files are not trusted.
"""
