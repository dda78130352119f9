"""Reproducible OGG Vorbis files: the same sound gives the same bytes.

libsndfile gives each stream a random serial number, which is part of every page. Pages are therefore rewritten with a
fixed number, and a new checksum. Source: RFC 3533, section 6.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from jukebox_deploy.errors import AudioError
from jukebox_deploy.files import atomic_path

_PEAK = 0.999  # louder sound is clipped
_HEADER = 27  # bytes of a page's header before its table of segments
_SERIAL, _CHECKSUM, _SEGMENTS = 14, 22, 26  # their offsets in the header
_POLYNOMIAL = 0x04C11DB7


def write_ogg(path: Path, audio: np.ndarray, sample_rate: int, quality: float = 0.5) -> None:
    """Write mono audio `[samples]`; a higher `quality`, from 0 to 1, makes a larger file."""
    import soundfile

    stream = io.BytesIO()
    clipped, smaller = np.clip(audio, -_PEAK, _PEAK), 1.0 - quality
    soundfile.write(stream, clipped, sample_rate, format="OGG", subtype="VORBIS", compression_level=smaller)
    with atomic_path(path) as partial:
        partial.write_bytes(with_serial_number(stream.getvalue(), 0))


def with_serial_number(ogg: bytes, number: int) -> bytes:
    """Return the stream with another serial number. Raises `AudioError` if it is not an OGG stream."""
    return b"".join(_renumbered(page, number) for page in _pages(ogg))


def _pages(ogg: bytes) -> Iterator[bytes]:
    begin = 0
    while begin < len(ogg):
        table = begin + _HEADER
        if ogg[begin : begin + 4] != b"OggS" or table > len(ogg):
            raise AudioError(f"byte {begin} of an OGG stream begins no page.")
        body = table + ogg[begin + _SEGMENTS]
        end = body + sum(ogg[table:body])
        yield ogg[begin:end]
        begin = end


def _renumbered(page: bytes, number: int) -> bytes:
    new = bytearray(page)
    new[_SERIAL : _SERIAL + 4] = struct.pack("<I", number)
    new[_CHECKSUM : _CHECKSUM + 4] = bytes(4)
    new[_CHECKSUM : _CHECKSUM + 4] = struct.pack("<I", _checksum(new))
    return bytes(new)


def _checksum(page: bytearray) -> int:
    table, checksum = _checksum_table(), 0
    for byte in page:
        checksum = (checksum << 8 & 0xFFFFFFFF) ^ table[checksum >> 24 ^ byte]
    return checksum


@cache
def _checksum_table() -> tuple[int, ...]:
    """Return the CRC table of a byte; the most significant bit comes first."""

    def entry(byte: int) -> int:
        value = byte << 24
        for _ in range(8):
            value = (value << 1 & 0xFFFFFFFF) ^ (_POLYNOMIAL if value >> 31 else 0)
        return value

    return tuple(map(entry, range(256)))
