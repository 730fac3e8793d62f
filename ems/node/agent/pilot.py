"""The points of a pilot: a random sample of a sweep, spread over the whole grid."""

from __future__ import annotations

from itertools import islice

from ems.sweep.order import RandomOrder


def outside(key: str, total: int, left_out: bytes, points: int) -> bytes:
    """The bitmap of all points below `total` but the first `points` of a random order that are not `left_out`.

    So a larger pilot has the points of a smaller one, and one that is interrupted goes on with its own.
    """
    bits = bytearray(b"\xff" * ((total + 7) // 8))
    order = RandomOrder(key, total).points()
    kept = (point for point in order if not left_out[point // 8] >> point % 8 & 1) if left_out else order
    for point in islice(kept, points):
        bits[point // 8] &= ~(1 << point % 8)
    return bytes(bits)


def either(one: bytes, other: bytes) -> bytes:
    """The bits that are set in one of two bitmaps of the same length."""
    return (int.from_bytes(one, "little") | int.from_bytes(other, "little")).to_bytes(len(one), "little")
