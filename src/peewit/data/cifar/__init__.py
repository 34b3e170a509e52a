"""CIFAR-10 and CIFAR-100: the published files, how to read them safely, and the decoded cache."""
