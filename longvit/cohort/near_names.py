"""Names that differ only in their spelling: P00 and p00, 1 and 0001, two samples of one TCGA patient."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

_TCGA = re.compile(r"TCGA[-_ ]\w{2}[-_ ]\w{4}", re.IGNORECASE)
_SEPARATORS, _ZEROS, _POINT_ZERO = re.compile(r"[\s_-]+"), re.compile(r"(?<!\d)0+(?=\d)"), re.compile(r"(?<=\d)\.0$")

MOST_ALIKE = 50
"""Largest number of names of one spelling that are compared with each other."""


def pieces(name: str) -> tuple[str, ...]:
    """Return the pieces of a name in lower case, without separators, leading zeros and a final `.0`.

    >>> pieces("P_007 a"), pieces("100.0")
    (('p', '7', 'a'), ('100',))
    """
    bare = _POINT_ZERO.sub("", name.casefold().strip(" _-"))
    return tuple(_ZEROS.sub("", piece) for piece in _SEPARATORS.split(bare))


def spelling(name: str) -> tuple[str, ...]:
    """Return the pieces of a patient's name; of a TCGA barcode those of its first twelve characters.

    >>> spelling("TCGA-05-4250-01Z-00-DX1")
    ('tcga', '5', '4250')
    """
    barcode = _TCGA.match(name)
    return pieces(barcode[0] if barcode else name)


def near_pairs(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of different names with one spelling; pieces may be joined, as P1 and P-1, not 1-10 and 11-0."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups["".join(spelling(name))].append(name)
    for group in groups.values():
        for a, b in combinations(group[:MOST_ALIKE], 2):
            if spelling(a) == spelling(b) or min(len(spelling(a)), len(spelling(b))) == 1:
                yield a, b


def nearest(names: Iterable[str], known: Iterable[str]) -> str | None:
    """Return a sentence about the first name that a known name has in another spelling, or None.

    >>> nearest(["1"], ["0001"])
    'the split has 1, the table has 0001'
    """
    of = {"".join(pieces(name)): name for name in known}
    return next((f"the split has {n}, the table has {of[k]}" for n in names if (k := "".join(pieces(n))) in of), None)
