"""Names of slide files: their endings, the ids made of them, and kinds of files that are often mistaken for slides."""

from pathlib import Path

ENDINGS = (
    *(".ome.tiff", ".ome.tif", ".svs", ".tiff", ".tif", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".dcm"),
    *(".svslide", ".qptiff"),
)
"""Endings of slide files, in lower case; an ending precedes the endings that it contains."""
_HEADS = {
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\x89HDF": "an HDF5 file, for example of features",
    b"\xff\xd8\xff": "a JPEG picture",
    b"PK\x03\x04": "a zip archive or an Excel table",
    b"\x1f\x8b": "a file packed with gzip",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
}
"""First bytes of other kinds of files. JPEG and zip are not the first bytes of any slide's opened file."""
_TEXTS = {
    "<!doc": "a web page, perhaps of an error",
    "<html": "a web page, perhaps of an error",
    "<?xml": "an XML file",
}
_TEXT_BYTES = 512
"""Bytes at the beginning of a file that are text if the file is text."""


def without_ending(name: str, endings: tuple[str, ...] = ENDINGS) -> str:
    """Return a name without the ending of a slide file; a name with another ending or only dots is returned as it is.

    >>> without_ending("a.b.OME.TIF"), without_ending("TCGA-A1.DX1.9fce-8f")
    ('a.b', 'TCGA-A1.DX1.9fce-8f')
    """
    lower = name.lower()
    return next((name[: -len(ending)] for ending in endings if lower.endswith(ending)), name)


def has_ending(name: str) -> bool:
    """Return whether a name has the ending of a slide file."""
    return name.lower().endswith(ENDINGS)


def other_kind(path: Path) -> str | None:
    """Return a description of a file that is not a slide, by its first bytes; None if it may be a slide.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_TEXT_BYTES)
    for first, kind in _HEADS.items():
        if head.startswith(first):
            return kind
    try:
        text = head.decode().lstrip().lower()
    except UnicodeDecodeError:
        return None
    if not text or not text.replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable():
        return None
    kinds = (kind for start, kind in _TEXTS.items() if text.startswith(start))
    return next(kinds, "a JSON file" if text[0] in "{[" else "a text file")
