"""Models of other programs -> Runs. Their files are read as data: none of their code is run."""
