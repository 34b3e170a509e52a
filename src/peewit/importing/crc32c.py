"""CRC-32C (Castagnoli), the checksum of TensorFlow's files: reflected polynomial 0x82F63B78."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

POLYNOMIAL, ONES = 0x82F63B78, 0xFFFFFFFF
# so many stretches of the data are worked through at once: 100 MB take a second, not twelve
LANES = 1024


def _table() -> npt.NDArray[np.uint32]:
    states: npt.NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        states = (states >> np.uint32(1)) ^ ((states & np.uint32(1)) * np.uint32(POLYNOMIAL))
    return states


TABLE = _table()
STEPS: list[int] = TABLE.tolist()


def crc32c(data: bytes | memoryview) -> int:
    """Return the checksum of ``data``.

    The state after some bytes is a linear function, over the field of two elements, of the state
    before and of the bytes. So the lanes start from 0 together, and are then put one behind the
    other: what a lane's length of zero bytes makes of each of the 32 bits, which runs beside them,
    moves a state over that length.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    values = np.frombuffer(data, np.uint8)
    length = len(values) // LANES
    state = ONES
    if length:
        states = np.zeros(LANES + 32, np.uint32)
        states[LANES:] = np.uint32(1) << np.arange(32, dtype=np.uint32)
        for column in values[: LANES * length].reshape(LANES, length).T:
            states[:LANES] ^= column
            states = TABLE[states & np.uint32(0xFF)] ^ (states >> np.uint32(8))
        moved = states[LANES:].tolist()
        for end in states[:LANES].tolist():
            for bit, image in enumerate(moved):
                if state >> bit & 1:
                    end ^= image
            state = end
    for byte in values[LANES * length :].tolist():
        state = STEPS[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ ONES


def masked(checksum: int) -> int:
    """Return a checksum as TensorFlow stores it: turned by 15 bits, and moved.

    So the checksum of data that holds its own checksum is no special number.
    """
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & ONES
