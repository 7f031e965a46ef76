"""Splitting and joining of baseline JPEG scans at the level of bits, without decoding coefficients; compiled by Numba.

In a unit of blocks (MCU) only the first DC coefficient of each component depends on preceding units: a scan contains
its difference to the preceding DC coefficient (ITU-T T.81, F.1.1.5.1). All other bits of a unit can be copied to any
place. `walk` finds the bits at which units and their DC codes begin and end. `join` writes runs of units one after
another. It copies their bits and rewrites only the three DC differences at the beginning of each run.

Indices are not checked here: callers pass arrays of the sizes given in the docstrings. Python's lock is released.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from preprocessing.jpeg.huffman import ADVANCE_SHIFT, BITS_MASK, LAST_BLOCK, MAX_ADVANCE, PEEK, Scan

SPARE = 64
"""Number of 32-bit words that a walk may read after the end of a scan before it detects the end."""
COLOURS = 3
LAST = 63
DC_BYTES = 24
"""Maximum size of the three DC codes at the beginning of a run of units, bytes, with the zeros after 0xFF."""
FF, ONES, HIGHS = np.uint32(0xFF), np.uint32(0x01010101), np.uint32(0x80808080)
U1, U2, U3, U4, U8, U32, U48 = (np.uint64(n) for n in (1, 2, 3, 4, 8, 32, 48))
LOW_WORD, PEEKED = np.uint64(0xFFFFFFFF), np.uint64(64 - PEEK)

Reader = tuple[int | np.int64, np.uint64, int | np.int64]
"""Index of the next word; bits that were read but not used yet, at the top of 64; and their number."""
Writer = tuple[int | np.int64, np.uint64, int]
"""Index of the next byte to write; bits that do not fill a word yet, at the bottom of 64; and their number."""


class ScanIndex(NamedTuple):
    """Result of `walk`: places of the units and DC codes of k scans with `units` units each."""

    words: np.ndarray
    """Bits of the scans without the zeros after 0xFF, uint32: a word per four bytes, 1 + `SPARE` more per scan."""
    units: np.ndarray
    """Bit at which each unit begins, and at which the last unit ends, (k, units + 1), int64."""
    dc_places: np.ndarray
    """Bits at which the first DC code of each component begins and ends, (k, units, 3, 2), int64."""
    dc_values: np.ndarray
    """First and last DC coefficient of each component in each unit, (k, units, 3, 2), int32."""


def compiled(function: Callable) -> Callable:
    """Return a function that Numba compiles at its first call.

    The compiled code is cached on disk, or, if the cache folder cannot be written to, kept for this process only.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)


@compiled
def _unstuff(data: np.ndarray, begin: int, end: int, words: np.ndarray, at: int) -> np.int64:
    """Write a scan's bytes, without the zeros after 0xFF, as big-endian words from `at` on; return their number."""
    i, last, out = np.uint64(begin), np.uint64(end), np.uint64(at)
    held, pending = np.uint64(0), np.uint64(0)
    while i < last:
        if i + U4 <= last:
            word = np.uint32(data[i]) << np.uint32(24) | np.uint32(data[i + U1]) << np.uint32(16)
            word |= np.uint32(data[i + U2]) << np.uint32(8) | np.uint32(data[i + U3])
            if (~word - ONES) & word & HIGHS == 0:  # none of the four is 0xFF
                held = held << U32 | np.uint64(word)
                words[out] = np.uint32(held >> pending * U8)
                out += U1
                i += U4
                continue
        byte = data[i]
        held = held << U8 | np.uint64(byte)
        pending += U1
        if pending == U4:
            words[out] = np.uint32(held)
            out += U1
            pending = np.uint64(0)
        i += U2 if byte == FF else U1
    words[out] = np.uint32(held << (U4 - pending) * U8) if pending else np.uint32(0)
    return (np.int64(out) - at) * 4 + np.int64(pending)


@compiled
def _refilled(words: np.ndarray, place: int, window: np.uint64, have: int) -> Reader:
    """Refill the window to at least 33 bits; without a branch, which the processor could not predict."""
    need = np.int64(have <= 32)
    window |= np.uint64(words[np.uint64(place)]) << np.uint64((32 - have) & 63) & np.uint64(-need)
    return place + need, window, have + (need << 5)


@compiled
def _skip_ac(words: np.ndarray, bits: Reader, many: np.ndarray, ac: np.ndarray, c: int) -> Reader:
    """Skip the AC coefficients of a block, and return the reader after them; its index is -1 if a code is invalid."""
    place, window, have = bits
    coefficient = 1
    while coefficient <= LAST:
        place, window, have = _refilled(words, place, window, have)
        step = np.int64(many[c, np.int64(window >> PEEKED)])
        after = coefficient + (step >> ADVANCE_SHIFT & MAX_ADVANCE)
        if step == 0 or after > LAST:  # a longer code, or the block may end within these steps
            step = np.int64(ac[c, np.int64(window >> U48)])
            after = coefficient + (step >> ADVANCE_SHIFT & MAX_ADVANCE)
            if step == 0 or after > LAST + 1:
                return -1, window, have
        window <<= np.uint64(step & BITS_MASK)
        have -= step & BITS_MASK
        if step & LAST_BLOCK:
            break
        coefficient = after
    return place, window, have


@compiled
def _walk_one(k: int, at: int, behind: int, scan: Scan, walked: ScanIndex) -> int:
    """Walk the scan in the words from `at` up to `behind`; return the bit at which it ends, or -1 if it is invalid."""
    words, units, dc_places, dc_values = walked
    _, blocks, dc, ac, many, _ = scan
    before = np.zeros(COLOURS, np.int64)
    place, window, have = at, np.uint64(0), 0
    for unit in range(units.shape[1] - 1):
        units[k, unit] = place * 32 - have
        for c in range(COLOURS):
            for block in range(blocks[c]):
                place, window, have = _refilled(words, place, window, have)
                code = np.int64(dc[c, np.int64(window >> U48)])
                length, size = code >> 8, code & 15
                if code == 0 or place > behind + 2:
                    return -1
                if size:
                    value = np.int64(window << np.uint64(length) >> np.uint64(64 - size))
                    before[c] += value if value >> (size - 1) else value - (1 << size) + 1
                if block == 0:
                    dc_places[k, unit, c, 0] = place * 32 - have
                    dc_places[k, unit, c, 1] = place * 32 - have + length + size
                    dc_values[k, unit, c, 0] = before[c]
                after_dc = place, window << np.uint64(length + size), have - length - size
                place, window, have = _skip_ac(words, after_dc, many, ac, c)
                if place < 0:
                    return -1
            dc_values[k, unit, c, 1] = before[c]
    units[k, -1] = place * 32 - have
    return units[k, -1]


@compiled
def walk(data: np.ndarray, begins: np.ndarray, ends: np.ndarray, scan: Scan, walked: ScanIndex) -> np.ndarray:
    """Find the units of k scans, and the first and last DC coefficient of each component in every unit.

    Args:
        data: Bytes that contain the scans, uint8.
        begins: Index at which each scan begins, (k,).
        ends: Index of the marker that ends each scan, (k,).
        scan: Coding of all scans.
        walked: Arrays that are filled with the result.

    Returns:
        True for each valid scan, (k,): it has the expected number of units and less than one byte more.
    """
    good, at = np.zeros(len(begins), np.bool_), 0
    for k in range(len(begins)):
        size = _unstuff(data, begins[k], ends[k], walked.words, at)
        behind = at + (size + 3) // 4
        walked.words[behind : behind + SPARE] = 0
        end = _walk_one(k, at, behind, scan, walked)
        good[k] = end >= 0 and 0 <= (at * 4 + size) * 8 - end < 8
        at = behind + SPARE
    return good


@compiled
def _put(data: np.ndarray, written: Writer, value: np.uint64, length: int) -> Writer:
    """Append `length` bits, at most 32; whole words are written as bytes, with a zero after each 0xFF."""
    at, held, have = written
    held, have = held << np.uint64(length) | value, have + length
    if have >= 32:
        have -= 32
        word, out = np.uint32(held >> np.uint64(have)), np.uint64(at)
        for shift in (24, 16, 8, 0):
            byte = np.uint8(word >> np.uint32(shift) & FF)
            data[out] = byte
            out += U1
            if byte == FF:
                data[out] = 0
                out += U1
        at = np.int64(out)
    return at, held, have


@compiled
def _copy(words: np.ndarray, begin: int, end: int, data: np.ndarray, written: Writer) -> Writer:
    """Append the bits of `words` from `begin` to `end`."""
    while begin < end:
        i, length = begin >> 5, min(32, end - begin)
        value = (np.uint64(words[i]) << U32 | np.uint64(words[i + 1])) << np.uint64(begin & 31) >> U32
        written = _put(data, written, (value & LOW_WORD) >> np.uint64(32 - length), length)
        begin += length
    return written


@compiled
def _append(
    run: tuple[int, int, int], before: np.ndarray, walked: ScanIndex, scan: Scan, data: np.ndarray, written: Writer
) -> Writer:
    """Append a run (scan, first unit, unit after the last); the writer's index is -1 if the table lacks a DC code."""
    k, unit, behind = run
    for c in range(COLOURS):
        value = walked.dc_values[k, unit, c, 0] - before[c]
        before[c] = walked.dc_values[k, behind - 1, c, 1]
        size, rest = 0, abs(value)
        while rest:
            size += 1
            rest >>= 1
        code = scan.dc_codes[c, size] if size < scan.dc_codes.shape[1] else 0
        if code == 0:
            return -1, written[1], written[2]
        if value < 0:
            value += (1 << size) - 1
        written = _put(data, written, np.uint64((code >> 8) << size | value), (code & 255) + size)
        end = walked.dc_places[k, unit, c + 1, 0] if c + 1 < COLOURS else walked.units[k, behind]
        written = _copy(walked.words, walked.dc_places[k, unit, c, 1], end, data, written)
    return written


@compiled
def _finish(data: np.ndarray, written: Writer) -> int:
    """Write the remaining bits, padded with ones to whole bytes; return the index at which the bytes end."""
    missing = -written[2] % 8
    at, held, have = _put(data, written, np.uint64((1 << missing) - 1), missing)
    for shift in range(have - 8, -1, -8):
        data[at] = held >> np.uint64(shift) & np.uint64(FF)
        at += 1
        if data[at - 1] == FF:
            data[at] = 0
            at += 1
    return at


@compiled
def _most(units: np.ndarray, unit: int, behind: int) -> int:
    """Return the maximum bytes of a run of units and the end of its scan, as if every byte were 0xFF."""
    return (units[behind] - units[unit]) // 4 + 2 * DC_BYTES


@compiled
def join(
    corners: np.ndarray, side: np.ndarray, tile: np.ndarray, numbers: np.ndarray, walked: ScanIndex, scan: Scan
) -> tuple[np.ndarray, np.ndarray]:
    """Write the scans of new tiles, which must not overlap, from the units of walked scans.

    Args:
        corners: Row and column of the first unit of each new tile, (n, 2), relative to the first tile of `numbers`.
        side: Rows and columns of a new tile, (2,), units.
        tile: Rows and columns of a walked tile, (2,), units.
        numbers: Index of the scan of the walked tile in each row and column; -1 if there is none.
        walked: The walked scans.
        scan: Coding of the walked scans and of the new scans.

    Returns:
        The bytes of all new scans, and the index at which each begins and the last ends, (n + 1,). A scan that cannot
        be written has no bytes.
    """
    runs = len(corners) * side[0] * (side[1] // tile[1] + 2)
    data = np.empty(walked.words.size * 9 // 2 + runs * DC_BYTES, np.uint8)  # an eighth more: zeros after 0xFF
    ends = np.zeros(len(corners) + 1, np.int64)
    for n in range(len(corners)):
        before, written = np.zeros(COLOURS, np.int64), (ends[n], np.uint64(0), 0)
        for row in range(corners[n, 0], corners[n, 0] + side[0]):
            column, stop = corners[n, 1], corners[n, 1] + side[1]
            while column < stop and written[0] >= 0:
                k = numbers[row // tile[0], column // tile[1]]
                unit = row % tile[0] * tile[1] + column % tile[1]
                behind = unit + min(stop - column, tile[1] - column % tile[1])
                column += behind - unit
                if k >= 0 and written[0] + _most(walked.units[k], unit, behind) < len(data):
                    written = _append((k, unit, behind), before, walked, scan, data, written)
                else:
                    written = -1, written[1], written[2]
        ends[n + 1] = _finish(data, written) if written[0] >= 0 else ends[n]
    return data, ends
