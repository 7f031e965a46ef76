"""Coding of a JPEG's scan, read from its header: blocks per unit, and Huffman codes as lookup tables. Pure.

ITU-T T.81: frame and scan headers B.2.2 and B.2.3, tables B.2.4.2, codes from their lengths C.2, decoding F.2.2.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocessing.jpeg.markers import FRAMES, SCAN, segments

PEEK = 12
"""Bits that are read first; all AC codes that fit into them are decoded at once."""
WHOLE = 16
"""Length of the longest code, bits."""
TABLES = 0xC4
RESTART_INTERVAL = 0xDD
BLOCK_PX = 8
LAST_BLOCK, ADVANCE_SHIFT, BITS_MASK = 1 << 15, 8, 0xFF
"""Fields of a step: flag for the end of a block; shift of its advance in coefficients; mask of its bits.

The bits of a step are the length of its codes and values together.
"""
MAX_ADVANCE = 127
ZERO_RUN, END_OF_BLOCK = 0xF0, 0x00

Codes = npt.NDArray[np.uint16]


class Scan(NamedTuple):
    """Coding of a baseline JPEG with a single scan, sufficient to find its blocks."""

    mcu: tuple[int, int]
    """Width and height of the smallest coded unit (MCU), pixels."""
    blocks: npt.NDArray[np.int64]
    """Blocks of each component in a unit, (3,), in the order of the scan."""
    dc: Codes
    """For each component and all 16 next bits, (3, 65536): length of the DC code << 8 | bits of the value after it."""
    ac: Codes
    """The same for AC codes, as steps (see `LAST_BLOCK`), (3, 65536); 0 if no code begins with these bits."""
    many: Codes
    """For each component and all `PEEK` next bits, (3, 2**PEEK): the steps that fit into them, joined to one step."""
    dc_codes: npt.NDArray[np.int64]
    """DC code << 8 | its length, for each number of bits of a value, (3, 16); 0 if the table has no such code."""


def read_scan(header: bytes) -> Scan:
    """Read the coding of a JPEG's scan from its header, which ends where the scan begins.

    Raises:
        ValueError: The JPEG is not baseline with one scan of three colours, has restart markers, or lacks a table.
    """
    tables: dict[int, tuple[bytes, bytes]] = {}
    frame, scan = b"", b""
    for kind, start, end in segments(header):
        body = header[start:end]
        if kind == TABLES:
            tables |= _tables(body)
        elif kind in FRAMES:
            frame += body
        elif kind == SCAN:
            scan += body
        elif kind == RESTART_INTERVAL and any(body):
            raise ValueError("the scan has restart markers")
    if len(frame) != 15 or len(scan) != 10 or (frame[0], frame[5], scan[0]) != (8, 3, 3):
        raise ValueError("not a baseline JPEG of three colours")
    components, used = frame[6:], scan[1:7]
    if components[::3] != used[::2] or scan[7:] != bytes([0, 63, 0]):
        raise ValueError("not one scan of all colours and coefficients")
    across, down = np.frombuffer(components[1::3], np.uint8) >> 4, np.frombuffer(components[1::3], np.uint8) & 15
    if not across.all() or not down.all():
        raise ValueError("a colour has a sampling factor of zero")
    try:
        dc, ac = [tables[which >> 4] for which in used[1::2]], [tables[1 << 4 | which & 15] for which in used[1::2]]
    except KeyError as missing:
        raise ValueError(f"Huffman table {missing} is missing") from None
    steps = np.stack([_steps(*table) for table in ac])
    return Scan(
        mcu=(BLOCK_PX * int(across.max()), BLOCK_PX * int(down.max())),
        blocks=across.astype(np.int64) * down,
        dc=np.stack([_dc(*table) for table in dc]),
        ac=steps,
        many=np.stack([_many(table) for table in steps]),
        dc_codes=np.stack([_dc_codes(*table) for table in dc]),
    )


def _tables(body: bytes) -> dict[int, tuple[bytes, bytes]]:
    """Return the tables of a segment: class and number -> counts of codes of 1 to 16 bits, and their symbols."""
    found = {}
    while body:
        counts = body[1:17]
        found[body[0]] = counts, body[17 : 17 + sum(counts)]
        if len(body) < 17 + sum(counts):
            raise ValueError("a Huffman table is cut short")
        body = body[17 + sum(counts) :]
    return found


def _codes(counts: bytes, symbols: bytes) -> list[tuple[int, int, int]]:
    """Return every code of a table with its length and its symbol (C.2)."""
    code, codes, rest = 0, [], iter(symbols)
    for length, count in enumerate(counts, 1):
        codes += [(code + i, length, next(rest)) for i in range(count)]
        code = (code + count) << 1
        if code > 2 << length:
            raise ValueError("a Huffman table has more codes than their lengths allow")
    return codes


def _lookup(counts: bytes, symbols: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, for all 16 next bits, (65536,), the length of the code at their beginning (0 if none) and its symbol."""
    lengths, meanings = np.zeros((2, 1 << WHOLE), np.int64)
    for code, length, symbol in _codes(counts, symbols):
        bits = slice(code << WHOLE - length, code + 1 << WHOLE - length)
        lengths[bits], meanings[bits] = length, symbol
    return lengths, meanings


def _dc(counts: bytes, symbols: bytes) -> Codes:
    lengths, sizes = _lookup(counts, symbols)
    return np.where(sizes < WHOLE, lengths << 8 | sizes, 0).astype(np.uint16)


def _dc_codes(counts: bytes, symbols: bytes) -> npt.NDArray[np.int64]:
    codes = np.zeros(WHOLE, np.int64)
    for code, length, size in _codes(counts, symbols):
        if size < WHOLE:
            codes[size] = code << 8 | length
    return codes


def _steps(counts: bytes, symbols: bytes) -> Codes:
    """Return the steps of AC codes, (65536,).

    Each has the bits of its code and of the value after it, and the number of coefficients including the zeros before
    that value (F.2.2.2).
    """
    lengths, symbols_of = _lookup(counts, symbols)
    sizes, runs, end = symbols_of & 15, symbols_of >> 4, symbols_of == END_OF_BLOCK
    advance = np.where(sizes > 0, runs + 1, np.where(symbols_of == ZERO_RUN, 16, 0))
    known = (lengths > 0) & (end | (advance > 0))
    return np.where(known, lengths + sizes | advance << ADVANCE_SHIFT | end * LAST_BLOCK, 0).astype(np.uint16)


def _many(steps: Codes) -> Codes:
    """Join all steps that fit into `PEEK` bits to one step, (2**PEEK,): bits and advances are added."""
    seen = np.arange(1 << PEEK, dtype=np.int64) << WHOLE - PEEK
    used, advance, ended, going = (np.zeros(len(seen), np.int64) for _ in range(4))
    going += 1
    for _ in range(PEEK):
        step = steps[(seen << used) & (1 << WHOLE) - 1].astype(np.int64)
        bits, forward = step & BITS_MASK, step >> ADVANCE_SHIFT & MAX_ADVANCE
        going &= (step > 0) & (used + bits <= PEEK) & (advance + forward <= MAX_ADVANCE)
        used, advance, ended = used + bits * going, advance + forward * going, ended | going & step // LAST_BLOCK
        going &= 1 - ended
    return (used | advance << ADVANCE_SHIFT | ended * LAST_BLOCK).astype(np.uint16)
