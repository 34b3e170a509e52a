"""Importing other makers' packages without what they tell their makers about whoever uses them."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

# Since 1.29 ONNX Runtime reports to Microsoft on Linux and macOS too, unless this says 1
ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"
# by this OpenVINO and NNCF report to Intel; both do without where it is not installed
OPENVINO = "openvino_telemetry"


def quiet(module: str) -> Any:
    """Import ``module`` so that it sends no reports and leaves no number of the user's on the disk.

    Pictures and networks are nobody else's business, and OpenVINO is there 0.1 s sooner. A package
    that the program has already imported otherwise stays as it is.

    Raises
    ------
    ImportError
        It is not installed.
    """
    if module in sys.modules:
        return import_module(module)
    fresh = module == "onnxruntime"
    if fresh:
        os.environ[ONNXRUNTIME] = "1"  # read once, as it is loaded
    kept = sys.modules.get(OPENVINO)
    sys.modules[OPENVINO] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        found = import_module(module)
    finally:
        del sys.modules[OPENVINO]
        if kept is not None:
            sys.modules[OPENVINO] = kept
    if fresh:
        found.disable_telemetry_events()  # on Windows, which does not read the variable
    return found
