"""The run folder that a training leaves on disk, and the ``Run`` object that reads it."""
