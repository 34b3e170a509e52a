"""The run folder that training leaves on disk, and the ``Run`` object that reads it."""
