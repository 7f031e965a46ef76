"""Reading of files of unknown origin, within size bounds."""

from pathlib import Path

from preprocessing.errors import CohortError

COPY = "copy the file of the run again, or remove it"


def read_bytes(path: Path, max_bytes: int, fix: str = COPY) -> bytes:
    """Return the content of a file.

    Raises:
        CohortError: The file cannot be read, or has more than `max_bytes` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise CohortError(f"the file cannot be read ({error.strerror})", where=path, fix=fix) from error
    if len(content) > max_bytes:
        what = f"the file has more than {max_bytes:,} bytes, more than any run writes"
        raise CohortError(what, where=path, fix=fix)
    return content


def read_text(path: Path, max_bytes: int) -> str | None:
    """Return the content of a UTF-8 file, or None if the file does not exist.

    Raises:
        CohortError: The file cannot be read, has more than `max_bytes` bytes, or is not UTF-8.
    """
    if not path.is_file():
        return None
    try:
        return read_bytes(path, max_bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise CohortError("the file cannot be read (it is not UTF-8)", where=path, fix=COPY) from None
