"""Import optional packages: without their telemetry, with the install command if one is missing."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from peewit.errors import PeewitError

# ONNX Runtime 1.29 and later sends telemetry to Microsoft on Linux and macOS unless this is 1
ONNXRUNTIME_SWITCH = "ORT_DISABLE_TELEMETRY"
# OpenVINO and NNCF send telemetry to Intel through this package; both work without it
OPENVINO_TELEMETRY = "openvino_telemetry"


def import_quietly(module: str) -> Any:
    """Import ``module`` with its telemetry disabled, so that no user ID is written to disk.

    It also saves 0.1 s when importing OpenVINO. A package that the program has already imported is
    returned unchanged.

    Raises
    ------
    ImportError
        It is not installed.
    """
    if module in sys.modules:
        return import_module(module)
    is_onnxruntime = module == "onnxruntime"
    if is_onnxruntime:
        os.environ[ONNXRUNTIME_SWITCH] = "1"  # read once, while the library is loaded
    previous = sys.modules.get(OPENVINO_TELEMETRY)
    sys.modules[OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # as if not installed
    try:
        imported = import_module(module)
    finally:
        del sys.modules[OPENVINO_TELEMETRY]
        if previous is not None:
            sys.modules[OPENVINO_TELEMETRY] = previous
    if is_onnxruntime:
        imported.disable_telemetry_events()  # for Windows, which ignores the variable
    return imported


def import_required(module: str, extra: str, purpose: str) -> Any:
    """Import ``module`` as ``import_quietly`` does; name the extra to install if it is missing.

    >>> import_required("not_there", "onnx", "export to ONNX")
    Traceback (most recent call last):
    peewit.errors.PeewitError: export to ONNX needs the package not_there; \
install it with: pip install 'peewit[onnx]'
    """
    try:
        return import_quietly(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise PeewitError(
            f"{purpose} needs the package {package}",
            "",
            f"install it with: pip install 'peewit[{extra}]'",
        ) from error
