"""What to say where an export's own package is not installed."""

from __future__ import annotations

from typing import Any

from peewit.errors import PeewitError
from peewit.export.quiet import quiet


def needed(module: str, extra: str, what: str) -> Any:
    """Import ``module``, or say how to install it.

    >>> needed("not_there", "onnx", "export to ONNX")
    Traceback (most recent call last):
    peewit.errors.PeewitError: export to ONNX needs the package not_there; \
pip install 'peewit[onnx]'
    """
    try:
        return quiet(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise PeewitError(
            f"{what} needs the package {package}", "", f"pip install 'peewit[{extra}]'"
        ) from error
