"""The networks: one architecture a file, and the registry that knows them by name."""
