"""The values of bench/engine/values.ts, bit for bit."""
import numpy as np

CHUNK = 1 << 20


def _hash32(start, count, seed):
    with np.errstate(over="ignore"):
        h = np.arange(start, start + count, dtype=np.uint64).astype(np.uint32)
        h = h + np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
        return h ^ (h >> np.uint32(16))


def hash_values(seed, count, bound):
    """float32 in [-bound, bound). In chunks, so that this never sets the peak of memory."""
    values = np.empty(count, np.float32)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        values[start : start + size] = (_hash32(start, size, seed).astype(np.float64) / 2**32 * 2 - 1) * bound
    return values


def hash_integers(seed, count, below):
    return (_hash32(0, count, seed) % np.uint32(below)).astype(np.int64)
