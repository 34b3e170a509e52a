"""Read picture files and prepare them for a network."""
