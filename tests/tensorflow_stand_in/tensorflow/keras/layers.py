"""Layers are only remembered."""


def _remembered(kind):
    return lambda *arguments, **options: (kind, arguments, options)


Conv2D, BatchNormalization, MaxPooling2D, Flatten, Dropout, Dense = map(
    _remembered,
    ("Conv2D", "BatchNormalization", "MaxPooling2D", "Flatten", "Dropout", "Dense"),
)
