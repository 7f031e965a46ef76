"""Verb `tile`: slides -> stores, in parallel and safe to run again, with a report row for every slide."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from hashlib import file_digest, md5
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from preprocessing.config import TileConfig
from preprocessing.errors import BusyError, ConfigError, PipelineError, SlideError, printable
from preprocessing.frames import part_px
from preprocessing.jobs.atomic_folder import claimed, is_claimed
from preprocessing.jobs.processes import completed
from preprocessing.slides.source import identity, slide_files
from preprocessing.store.schema import encoders
from preprocessing.store.store import PatchStore, open_store
from preprocessing.tiling.manifest import SlideEntry, read_manifest
from preprocessing.tiling.piece_table import save_pieces
from preprocessing.tiling.report import SlideRow, TileReport, picture_path, save_picture
from preprocessing.tiling.resume import reason_to_tile, refuse_other_settings
from preprocessing.tiling.tile_slide import tile_slide
from preprocessing.tissue.masks import export_mask
from preprocessing.tissue.pieces import label_pieces

THREADS_OF_A_SLIDE = 2
"""Threads per slide if there are more slides than workers; more threads would wait for Python's global lock."""
MANY = 8
"""Slides per worker from which a slide has one thread. Two threads also wait for each other, which then costs more
than idle workers at the end of the run."""
BUSY = "another process is tiling it"
"""Reason for skipping a slide that another run over the same folder is tiling."""


def run(config: TileConfig) -> TileReport:
    """Make one store per slide, and `tile_report.csv` and `tile_report.html` next to the stores.

    With `pieces`, also `pieces.csv`.

    Finished stores whose slide has not changed are skipped. Stores made with other settings are refused before any
    slide is read, unless `overwrite` is set. A slide that fails is in the report with the reason and the fix, and the
    other slides continue. An unfinished store never has its final name.

    Raises:
        CohortError: The slides are missing, or their ids cannot be used.
        ConfigError: The output folder cannot be made, or contains stores made with other settings.

    >>> report = run(TileConfig(slides="slides", out="stores", mpp=0.5))  # doctest: +SKIP
    >>> report.exit_code  # doctest: +SKIP
    0
    """
    console = Console(stderr=True)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    entries = read_manifest(config.slides, config.slides_folder, config.id_from, say)
    if config.check_md5 and not any(entry.md5 for entry in entries):
        fix = "give the manifest of gdc-client, which has a column md5, or omit --check-md5"
        raise ConfigError("no list of the slides has their MD5", where=config.slides[0], fix=fix)
    _prepare_folders(config)
    if replacing := refuse_other_settings(entries, config):
        say(replacing)
    rows: dict[str, SlideRow] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("slides", total=len(entries))
        for row in _rows(entries, config):
            rows[row.slide_id] = row
            progress.update(task, advance=1, description=row.slide_id)
    report = TileReport(config.out, [rows[entry.slide_id] for entry in entries])
    report.save()
    if config.pieces:
        done = [row.slide_id for row in report.rows if row.n_tiles]
        save_pieces(config.out, (open_store(config.out / f"{slide_id}.zarr") for slide_id in done))
    return report


def _prepare_folders(config: TileConfig) -> None:
    """Check that the folder of masks exists, and make the folder of stores."""
    masks, fix = config.tissue.masks, "check --tissue.masks, or omit it"
    try:
        if masks is not None and not masks.is_dir():
            raise ConfigError("the folder of masks does not exist", where=masks, fix=fix)
    except OSError as error:  # for example a name that is too long
        raise ConfigError(f"the masks cannot be read: {error.strerror}", where=masks, fix=fix) from error
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except ValueError as error:  # NUL in the path
        raise ConfigError(
            f"no folder can have this name: {error}", where=config.out, fix="choose another --out"
        ) from error


def tile_or_skip(entry: SlideEntry, config: TileConfig, threads: int = 1) -> SlideRow:
    """Tile a slide unless its store is up to date, and return its row of the report.

    Errors are in the row and are not raised, so that the other slides continue.
    """
    start, path = time.perf_counter(), config.out / f"{entry.slide_id}.zarr"
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its messages do not name the file; the row does
    try:
        reason, lost = reason_to_tile(entry, path, config), ()
        if reason is not None or is_claimed(path):
            with claimed(path, "xy_l0") as folder:  # Zarr folders of other programs have no such array
                reason = reason_to_tile(entry, path, config)  # another process may have tiled it since
                if reason is not None:
                    lost = tuple(encoders(path))
                    _tile_unchanging(entry, folder, config, threads)
        store = open_store(path)
        _save_missing(config, store)
        return SlideRow(
            slide_id=entry.slide_id,
            status="skipped" if reason is None else "done",
            reason="complete" if reason is None else reason,
            n_tiles=len(store),
            mpp=store.mpp_l0,
            mpp_source=store.mpp_source,
            seconds=round(time.perf_counter() - start, 3),
            warnings="; ".join(store.warnings),
            replaced=bool(reason),
            lost=lost,
        )
    except BusyError:
        return SlideRow(entry.slide_id, "skipped", BUSY)
    except Exception as error:
        what, fix = describe_failure(error)
        seconds = round(time.perf_counter() - start, 3)
        return SlideRow(entry.slide_id, "failed", what, fix, seconds=seconds)


def _save_missing(config: TileConfig, store: PatchStore) -> None:
    """Write the picture of a finished store, and its mask if `export_masks` is set, unless they exist."""
    if not picture_path(config.out, store.slide_id).exists():
        part = part_px(store.bounds_l0, store.size_l0, store.overview_mask.shape)
        um_per_px = store.mpp_l0 * store.size_l0[0] / store.overview_mask.shape[1]
        labels = label_pieces(store.overview_mask, um_per_px, config.piece_gap_um)[part] if config.pieces else None
        save_picture(config.out, store.slide_id, store.overview[part], store.overview_mask[part], labels)
    if config.export_masks is not None:
        mask = config.out / "masks" / f"{store.slide_id}.{config.export_masks}"
        if not mask.exists() or mask.stat().st_mtime_ns < (store.path / "zarr.json").stat().st_mtime_ns:
            mask.parent.mkdir(exist_ok=True)
            export_mask(store, mask, config.tissue.geojson_frame)


def _tile_unchanging(entry: SlideEntry, folder: Path, config: TileConfig, threads: int) -> None:
    """Tile a slide within a claim, and raise if its files changed meanwhile, so that the store is discarded."""
    files = slide_files(entry.path)
    before = identity(files)
    if config.check_md5 and entry.md5:
        _check_md5(entry.path, entry.md5)
    tile_slide(entry, folder, config, threads)
    if identity(files) != before:
        raise SlideError(
            "the slide changed or vanished while it was read", where=entry.path, fix="run again when it is complete"
        )


def _check_md5(path: Path, expected: str) -> None:
    """Compare a slide with its MD5 in the manifest, hexadecimal.

    Raises:
        SlideError: They differ.
    """
    with path.open("rb") as file:
        found = file_digest(file, partial(md5, usedforsecurity=False)).hexdigest()
    if found != expected:
        raise SlideError(
            f"the file's MD5 is {found}, in the manifest it is {expected}: the file is damaged or not complete",
            where=path,
            fix="download it again with gdc-client",
        )


def describe_failure(error: BaseException) -> tuple[str, str]:
    """Return a description of an error and its fix, for the report."""
    if isinstance(error, PipelineError):
        return error.what, error.fix
    if isinstance(error, BrokenProcessPool):
        return (
            "the process that tiled it was killed, and once more when alone, perhaps because memory ran out",
            "run again on a machine with more memory, or with fewer --workers; finished work is kept",
        )
    if isinstance(error, MemoryError):
        return "there was not enough memory", "run again, with fewer --workers; finished work is kept"
    if isinstance(error, OSError):
        place = "" if error.filename is None else f": {error.filename}"
        return printable(f"{error.strerror or error}{place}"), "check free space and permissions, then run again"
    what = printable(f"{type(error).__name__}: {error}")
    return what, "this is a fault of the program: please report it with this line"


def _rows(entries: list[SlideEntry], config: TileConfig) -> Iterator[SlideRow]:
    """Yield a row for every slide when it is finished.

    Slides that another process was tiling are tried once more at the end.
    """
    busy: dict[str, SlideEntry] = {entry.slide_id: entry for entry in entries}
    for row in _rows_once(entries, config):
        if row.reason != BUSY:
            del busy[row.slide_id]
            yield row
    yield from _rows_once(list(busy.values()), config)


def _rows_once(entries: list[SlideEntry], config: TileConfig) -> Iterator[SlideRow]:
    """Yield a row for every slide, tiled in parallel processes with one or a few threads per slide.

    A process that dies fails one slide only.
    """
    if config.workers == 1 or len(entries) <= 1:
        yield from (tile_or_skip(entry, config, config.workers) for entry in entries)
        return
    of_a_slide = 1 if len(entries) >= MANY * config.workers else THREADS_OF_A_SLIDE
    processes = min(len(entries), -(-config.workers // of_a_slide))
    work = partial(tile_or_skip, config=config, threads=-(-config.workers // processes))
    for entry, future in completed(work, entries, processes):
        error = future.exception()
        yield future.result() if error is None else SlideRow(entry.slide_id, "failed", *describe_failure(error))
