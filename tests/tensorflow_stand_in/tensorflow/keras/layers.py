"""Layers that only record their arguments."""


def _recorder(kind):
    return lambda *arguments, **options: (kind, arguments, options)


Conv2D, BatchNormalization, MaxPooling2D, Flatten, Dropout, Dense = map(
    _recorder,
    ("Conv2D", "BatchNormalization", "MaxPooling2D", "Flatten", "Dropout", "Dense"),
)
