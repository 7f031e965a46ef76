"""Verb `pretrain`: stores -> encoder."""

from functools import partial
from pathlib import Path

from torch.utils.data import DataLoader

from longvit.cohort.slide_labels import LabelledSlides, map_slides_to_patients, read_labelled
from longvit.config import PretrainConfig, ViewsConfig
from longvit.model import LongViT, save_encoder
from longvit.model.rank_group import rank_share
from longvit.pretraining.monitor import Monitor, noted
from longvit.pretraining.objectives import build_objective
from longvit.pretraining.probe import Probe, chance_error
from longvit.pretraining.sampling import DrawSampler
from longvit.pretraining.views import VIEWS, collate_views
from longvit.runs.folder import open_run, settings_of
from longvit.runs.input_hashes import read_inputs
from longvit.tokens.read import StoreScale, require_one_scale
from longvit.training.loop import begin, fit, loader_processes
from longvit.training.mesh import Mesh, current_mesh, open_mesh
from longvit.training.sharding import whole
from preprocessing.errors import ConfigError
from preprocessing.store.store import find_stores, open_store


def run(config: PretrainConfig) -> Path:
    """Pretrain an encoder; an interrupted run continues after its last epoch.

    In a mesh, every `data` rank draws its part of each batch. Losses and gradients are those of one process.

    Returns:
        `encoder.safetensors` in the run's folder, the last file that is written.

    Raises:
        CohortError: The table of patients or the probe's table does not fit the stores.
        ConfigError: A batch is larger than an epoch, the ranks of a mesh cannot share a batch, or the folder contains
            another run.
        StoreError: The folder has no stores, or stores of several resolutions.
    """
    with open_mesh(config.execution, config.device, trains=True) as mesh:
        return _run(config, mesh)


def _run(config: PretrainConfig, mesh: Mesh) -> Path:
    found = find_stores(config.stores)
    stores = list(found.values())
    require_one_scale(stores)
    patient_of, labelled = map_slides_to_patients(config.patients, found), read_labelled(config.probe, found)
    draws = len(stores) * config.regions_per_slide
    if draws < config.batch_size:
        raise ConfigError(
            f"an epoch has {draws} regions, fewer than a batch of {config.batch_size}",
            where="batch_size",
            fix="lower batch_size or raise regions_per_slide",
        )
    mesh.require_shares("batch_size", config.batch_size, even=True)
    source = config.encoder.input
    mesh.require_tokens(VIEWS[source.kind].tokens_of_views(source, drawn_views(config)))
    result = config.out / "encoder.safetensors"
    files = {"patients": config.patients, "probe.table": config.probe.table}
    inputs = read_inputs(files, found, config.encoder.input)
    mesh.require_same("settings or stores", (settings_of(config), inputs.stores, inputs.files))
    with mesh.entered_by_first(open_run(config, "pretrain", inputs, result)) as opened:
        if not opened.finished:
            _train(config, stores, patient_of, labelled, result)
    return result


def _train(
    config: PretrainConfig,
    stores: list[Path],
    patient_of: dict[str, str],
    labelled: LabelledSlides | None,
    result: Path,
) -> None:
    begin(config)
    module = build_objective(config)
    meters = [Monitor(), *([Probe(config, labelled)] if labelled else [])]
    loader = views_loader(config, stores, patient_of)
    noise = chance_error(labelled) if labelled else 0.0
    read = lambda rows: noted(rows, config.optimiser.epochs, noise)
    fit(module, loader, config, config.out, meters=meters, read=read)
    encoder = LongViT(config.encoder)  # as configured: a teacher's own config has no dropout
    encoder.load_state_dict(whole(module.kept.state_dict()))
    encoder.trained_on = StoreScale.of(open_store(stores[0]))
    current_mesh().from_first(lambda: save_encoder(result, encoder))


def views_loader(config: PretrainConfig, stores: list[Path], patient_of: dict[str, str]) -> DataLoader:
    """Return a loader of batches of views; its workers stay alive between epochs."""
    draws, seed, data = config.regions_per_slide, config.seed, current_mesh().data
    size = config.batch_size // data.size if data else config.batch_size
    part = slice(data.rank * size, (data.rank + 1) * size) if data else slice(None)
    source, sequence = config.encoder.input, current_mesh().sequence
    own = partial(rank_share, rank=sequence.rank, ranks=sequence.size) if sequence else range
    dataset = VIEWS[source.kind](stores, source, drawn_views(config), draws, seed, patient_of, share=own)
    return DataLoader(
        dataset,
        size,
        sampler=DrawSampler(len(dataset), seed, config.batch_size, part),
        collate_fn=collate_views,
        drop_last=True,
        **loader_processes(config.loader_workers),
    )


def drawn_views(config: PretrainConfig) -> ViewsConfig:
    """Return the settings of the views that the objective uses; only DINO uses local views."""
    return config.views if config.objective.kind == "dino" else config.views.model_copy(update={"local_views": 0})
