"""A Run's network for other programs, each format checked by the runtime that is to read it."""
