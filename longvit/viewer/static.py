"""Page as a folder, which opens from disk or from any web server."""

from pathlib import Path

from rich.progress import track

from longvit.viewer.site import PAGE, START, Site
from preprocessing.errors import ConfigError
from preprocessing.jobs.atomic_folder import claimed

INDEX = "data/index.js"
"""File that every page has, and no other folder has."""


def write_static(site: Site, out: Path) -> Path:
    """Write every file of the page: the whole folder or none of it.

    Returns:
        The page, `index.html`.

    Raises:
        ConfigError: The folder contains something else.
        PipelineError: A slide cannot be read.
    """
    if out.exists() and not _is_page(out):
        what = "this exists already, and is not a page of the viewer"
        raise ConfigError(what, where=out, fix="choose another --static, or remove files that are not the viewer's")
    with claimed(out, INDEX) as folder:
        for path in track(list(site.paths()), "files"):
            resource = site.find(path)
            assert resource is not None, path
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(resource.make())
    return out / START


def _is_page(out: Path) -> bool:
    """Return whether a folder is empty or contains only files of a page."""
    names = {path.name for path in out.iterdir()} if out.is_dir() and not out.is_symlink() else {""}
    ours = {Path(path).parts[0] for path in PAGE} | {Path(INDEX).parts[0]}
    return not names or (names <= ours and (out / INDEX).is_file())


def megabytes(folder: Path) -> float:
    """Return the size of a folder in MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
