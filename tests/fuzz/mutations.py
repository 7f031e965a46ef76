"""Changes of bytes, JSON and PNG that damage them, or lie."""

import copy
import json
import math
import random
import struct
import zlib
from typing import Any

NUMBERS = (
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
    2**64 - 2,
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e-300, 1e300, math.nan, math.inf, 2**31, 2**63, 2**64, 10**30, 10**400,
    "", "0", "a", "../../x", "/x", "\0", "a" * 300, "\ud800", [], {}, [[]], [0], {"a": 0}, [1] * 1000,
)  # fmt: skip


def damaged(rng: random.Random, data: bytes, places: list[int] | None = None) -> bytes:
    """Bytes with one to eight changes, half of them at the places that matter, if those are given."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        at = rng.choice(places) if places and rng.random() < 0.5 else rng.randrange(len(changed))
        at = min(at, len(changed) - 1)
        _change(rng, changed, at)
    return bytes(changed)


def _change(rng: random.Random, data: bytearray, at: int) -> None:
    kind, length = rng.randrange(8), rng.choice((1, 2, 4, 8, 16, 300))
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind in (2, 3):
        size = rng.choice((1, 2, 4, 8))
        number = rng.choice(NUMBERS) % (1 << 8 * size)
        data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
    elif kind == 4:
        del data[at : at + length]
    elif kind == 5:
        data[at:at] = rng.randbytes(length)
    elif kind == 6:
        source = rng.randrange(len(data))
        data[at : at + length] = data[source : source + length]
    else:
        del data[rng.randrange(len(data)) if rng.random() < 0.3 else at :]


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    """A document with one to three values replaced, removed or put in too deep."""
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        nodes = list(_nodes(document))
        if not nodes:
            break
        parent, key = rng.choice(nodes)
        kind = rng.randrange(6)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent[key], int | float) and abs(parent[key]) < 1e100:
            parent[key] = parent[key] * rng.choice((-1, 2, 1000, 1e9, 0.5)) + rng.choice((0, 1, -1))
        elif kind == 2:
            other, name = rng.choice(nodes)
            parent[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
        elif kind == 3 and rng.random() < 0.2:
            parent[key] = json.loads("[" * 300 + "]" * 300)
        else:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(document).encode()


def _keys(node: Any) -> Any:
    return node if isinstance(node, dict) else range(len(node))


def _nodes(node: Any):
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from _nodes(node[key])


def damaged_png(rng: random.Random, data: bytes) -> bytes:
    """A PNG whose chunks are changed and have the right checksums, so that the decoder looks at them."""
    if rng.random() < 0.3:
        return damaged(rng, data)
    at, chunks = 8, []
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    chunk = rng.choice(chunks)
    if chunk[0] == b"IDAT" and rng.random() < 0.5:
        chunk[1] = zlib.compress(damaged(rng, zlib.decompress(chunk[1])))
    else:
        chunk[1] = damaged(rng, chunk[1] or b"\0")
    if rng.random() < 0.1:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out
