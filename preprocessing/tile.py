"""Verb `tile`: slides -> stores, in parallel and safe to run again, with a report row for every slide."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import zarr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from preprocessing.config import TileConfig
from preprocessing.errors import ConfigError, PipelineError, StoreError
from preprocessing.manifest import SlideEntry, read_manifest
from preprocessing.report import SlideRow, TileReport
from preprocessing.schema import SCHEMA_VERSION, StoreAttributes, read_attributes
from preprocessing.slide_to_store import store_config, tile_slide


def run(config: TileConfig) -> TileReport:
    """Make one store per slide, and `tile_report.csv` and `tile_report.html` beside them.

    Finished stores whose slide and settings have not changed are skipped. A slide that fails is in the report, with the
    reason and the fix, and the others go on; a half-written store is never left under its name.

    Raises:
        CohortError: The slides are not there, or their ids cannot be used.
        ConfigError: The output folder cannot be made.

    >>> report = run(TileConfig(slides="slides", out="stores", mpp=0.5))  # doctest: +SKIP
    >>> report.exit_code  # doctest: +SKIP
    0
    """
    entries = read_manifest(config.slides)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder: {error.strerror}", where=config.out, fix="choose another --out"
        ) from error
    rows: dict[str, SlideRow] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("slides", total=len(entries))
        for row in _rows(entries, config):
            rows[row.slide_id] = row
            progress.update(task, advance=1, description=row.slide_id)
    report = TileReport(config.out, [rows[entry.slide_id] for entry in entries])
    report.save()
    return report


def tile_or_skip(entry: SlideEntry, config: TileConfig) -> SlideRow:
    """Tile one slide unless that is done already. Never raises for what is wrong with the slide: the row says it."""
    start, path = time.perf_counter(), config.out / f"{entry.slide_id}.zarr"
    try:
        redo = reason_to_tile(entry, path, config)
        if redo is None:
            attributes, status = StoreAttributes.model_validate(read_attributes(path)), "skipped"
        else:
            attributes, status = tile_slide(entry, path, config), "done"
        return SlideRow(
            slide_id=entry.slide_id,
            status=status,
            reason="complete" if redo is None else redo,
            n_tiles=zarr.open_array(path / "tiles", mode="r").shape[0],
            mpp=attributes.mpp_level0,
            mpp_source=attributes.mpp_source,
            seconds=round(time.perf_counter() - start, 3),
        )
    except Exception as error:
        what, fix = explain(error)
        seconds = round(time.perf_counter() - start, 3)
        return SlideRow(entry.slide_id, "failed", what, fix, seconds=seconds)


def reason_to_tile(entry: SlideEntry, path: Path, config: TileConfig) -> str | None:
    """Why a slide has to be tiled: empty if it has no store, a sentence if it has one of no use, None if it is done."""
    try:
        attributes = read_attributes(path)
    except StoreError:
        return "its store was damaged" if path.exists() else ""
    if attributes.get("schema_version") != SCHEMA_VERSION or attributes.get("complete") is not True:
        return "its store was unfinished or of another version"
    old = StoreAttributes.model_validate(attributes)
    source = (entry.path.name, entry.path.stat().st_size) if entry.path.exists() else None
    settings = store_config(config)
    if old.mpp_source != "flag":  # the flag is for slides that do not state their resolution
        settings["mpp_if_missing"] = old.config.get("mpp_if_missing")
    changed = sorted(key for key in settings if settings[key] != old.config.get(key))
    manifest_mpp = old.mpp_level0 if old.mpp_source == "manifest" else None
    reasons = {
        "it was asked for again": config.overwrite,
        "the slide has changed": source != (old.source.name, old.source.size),
        f"settings have changed: {', '.join(changed)}": bool(changed),
        "the resolution in the manifest has changed": entry.mpp != manifest_mpp,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def explain(error: BaseException) -> tuple[str, str]:
    """What happened and how to fix it, for the report."""
    if isinstance(error, PipelineError):
        return error.what, error.fix
    if isinstance(error, BrokenProcessPool):
        return (
            "a worker process died, perhaps for want of memory",
            "run again, with fewer --workers; what is done is kept",
        )
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}", "check room and permissions of the disk, then run again"
    return f"{type(error).__name__}: {error}", "this is a fault of the program: please report it with this line"


def _rows(entries: list[SlideEntry], config: TileConfig) -> Iterator[SlideRow]:
    """A row for every slide, as they get ready."""
    workers = min(config.workers, len(entries))
    if workers == 1:
        for entry in entries:
            yield tile_or_skip(entry, config)
        return
    # Spawned, not forked: the libraries below run threads. OpenCV's own are off, the processes are the parallelism.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        futures = {pool.submit(tile_or_skip, entry, config): entry for entry in entries}
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield (
                    future.result() if error is None else SlideRow(futures[future].slide_id, "failed", *explain(error))
                )
        except BaseException:  # interrupted: do not begin with the slides that wait
            pool.shutdown(cancel_futures=True)
            raise
