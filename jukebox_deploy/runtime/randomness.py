"""Random numbers as a pure function of their place: (seed, song, level, position) -> u.

No state is carried from token to token, so the numbers of a song do not depend on the batch, slot, shard or resumed
run in which it is sampled. The generator is Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", 2011), whose stream NumPy guarantees to keep.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jukebox_deploy.errors import SamplingError

_NUMBERS_PER_BLOCK = 4  # 64-bit numbers that Philox-4x64 generates per counter value
_RESOLUTION_BITS = 23


def uniforms(seed: int, song: int, level: int, start: int, count: int) -> npt.NDArray[np.float32]:
    """Return the numbers for positions `start` to `start + count - 1` of a song's level, float32 `[count]`.

    Each number is `k / 2**23` with an integer `0 <= k < 2**23`. With 23 bits (but not with 24), `u * total < total`
    holds in float32 for every positive total, so that an inverse CDF never runs past its last entry.

    Raises:
        SamplingError: for a seed outside 64 bits, a song or level outside 32 bits, or a negative
            position or count.
    """
    for name, value, bits in (("seed", seed, 64), ("song", song, 32), ("level", level, 32), ("start", start, 62)):
        if not 0 <= value < 2**bits:
            raise SamplingError(f"Random numbers: {name} must be an integer from 0 to 2^{bits} - 1, found {value}.")
    if count < 0:
        raise SamplingError(f"Random numbers: count must not be negative, found {count}.")
    key = np.array([seed, song << 32 | level], np.uint64)
    block, skipped = divmod(start, _NUMBERS_PER_BLOCK)
    generator = np.random.Philox(key=key, counter=np.array([block, 0, 0, 0], np.uint64))
    raw = generator.random_raw(skipped + count)[skipped:]
    whole = (raw >> np.uint64(64 - _RESOLUTION_BITS)).astype(np.float32)
    return whole * np.float32(2.0**-_RESOLUTION_BITS)
