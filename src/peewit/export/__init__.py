"""Export a Run's network to other runtimes; each file is checked in its own runtime."""
