"""The page as a folder that opens from disk, or lies on any web server."""

from pathlib import Path

from rich.progress import track

from longvit.explanation.viewer.site import START, Site
from preprocessing.claim import claimed
from preprocessing.errors import ConfigError


def write_static(site: Site, out: Path) -> Path:
    """Write every file of the page, the whole folder or none of it.

    Returns:
        The page, `index.html`.

    Raises:
        ConfigError: The folder holds something else.
        PipelineError: A slide cannot be read.
    """
    if out.exists() and not (out / START).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("this is there already, and is no page of ours", where=out, fix="choose another --static")
    with claimed(out, START) as folder:
        for path in track(list(site.paths()), "files"):
            resource = site.find(path)
            assert resource is not None, path
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(resource.make())
    return out / START


def megabytes(folder: Path) -> float:
    """How large a folder is."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
