"""Import models of other programs as Runs; their files are only parsed, and no code is run."""
