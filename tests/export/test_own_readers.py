"""The trainers' own readers, where they are installed (tests/requirements-trainers.txt), read what was written."""

import json
import runpy
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from export_examples import BATCH, CONTEXT, example_schedule, one_phase

from tikmix_pipeline.export.registry import write
from tikmix_pipeline.export.schedule import Domain

# what other packages warn of when they are imported is not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore")


def reader(module: str):
    """Return a trainer's module, or skip the test."""
    reason = f"{module} does not import: it is in tests/requirements-trainers.txt"
    return pytest.importorskip(module, reason=reason, exc_type=ImportError)


@pytest.fixture
def export(tmp_path):
    """Write a trainer's files to disk; return their folder and what they state by path."""

    def exported(trainer, schedule=None):
        schedule = schedule or example_schedule()
        result = write(trainer, schedule)
        for name, text in result.files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        stated = {schedule.domain(name).path: weight for name, weight in result.realised.stated.items()}
        return SimpleNamespace(folder=tmp_path, stated=stated, result=result)

    return exported


def test_torchtitans_snippet_builds_one_weighted_dataset_per_domain(export):
    made = export("torchtitan")
    train_mix = runpy.run_path(str(made.folder / "torchtitan.py"))["train_mix"]
    mix = train_mix(SimpleNamespace, SimpleNamespace, open_dataset=str)
    assert {child.dataset: child.weight for child in mix.datasets} == made.stated


def test_datasets_draws_the_documents_that_give_the_shares_of_tokens(export):
    datasets = reader("datasets")
    domains = [Domain("long", "long", None, 40.0), Domain("short", "short", None, 10.0)]
    made = export("hf_datasets", one_phase({"long": 0.7, "short": 0.3}, domains))

    def open_dataset(path):
        return datasets.Dataset.from_dict({"tokens": [40 if path == "long" else 10] * 2000})

    drawn = runpy.run_path(str(made.folder / "hf_datasets.py"))["train_dataset"](open_dataset)
    tokens = np.array(drawn["tokens"])
    of_long = tokens[tokens == 40].sum() / tokens.sum()
    of_long_stderr = 0.7 * 0.3 / np.sqrt(len(tokens) * made.stated["long"] * made.stated["short"])
    assert abs(of_long - 0.7) < 4 * of_long_stderr


def test_dacite_reads_nanotrons_stages_strictly(export):
    dacite = reader("dacite")

    @dataclass
    class Nanoset:
        dataset_folder: str | list[str]
        dataset_weights: list[float] | None = None

    @dataclass
    class Data:
        dataset: Nanoset | None
        seed: int | None
        num_loading_workers: int | None = 1

    @dataclass
    class Stage:
        name: str
        start_training_step: int
        data: Data

    @dataclass
    class Config:
        data_stages: list[Stage]

    made = export("nanotron")
    raw = yaml.safe_load((made.folder / "nanotron.yaml").read_text(encoding="utf-8"))
    config = dacite.from_dict(Config, raw, config=dacite.Config(strict=True))
    dataset = config.data_stages[-1].data.dataset
    assert dict(zip(dataset.dataset_folder, dataset.dataset_weights, strict=True)) == made.stated


def test_litdata_combines_by_the_weights(export):
    litdata = reader("litdata")
    made = export("litgpt")
    opened = []

    def open_dataset(folder):
        opened.append(folder)
        return litdata.StreamingDataset.__new__(litdata.StreamingDataset)

    combined = runpy.run_path(str(made.folder / "litgpt.py"))["train_dataset"](open_dataset)
    assert dict(zip(opened, combined._weights, strict=True)) == pytest.approx(made.stated, abs=1e-15)


def test_olmo_core_reads_and_validates_the_sources(export):
    source_mixture = reader("olmo_core.data.source_mixture")
    made = export("olmo_core")
    sources = source_mixture.SourceMixtureList.from_yaml(str(made.folder / "olmo_core.yaml"))
    sources.validate()
    assert {path: source.target_ratio for source in sources.sources for path in source.paths} == made.stated


def ten_batches(source_mixture, made):
    """Return OLMo-core's own configuration of ten batches from the file that was written."""
    return source_mixture.SourceMixtureDatasetConfig(
        source_list=source_mixture.SourceMixtureList.from_yaml(str(made.folder / "olmo_core.yaml")),
        requested_tokens=10 * BATCH,
        global_batch_size=BATCH,
        render_tables=False,
        quiet=True,
    )


def test_olmo_core_fills_a_chunk_at_the_limit_of_its_epochs(export, tmp_path):
    source_mixture = reader("olmo_core.data.source_mixture")
    types = reader("olmo_core.data.types")
    sizes = {"web": 20 * BATCH, "books": 2 * BATCH}
    for name, size in sizes.items():
        np.zeros(size, np.uint16).tofile(tmp_path / f"{name}.npy")
    domains = [
        Domain(name, str(tmp_path / f"{name}.npy"), size, None, consumed_tokens=size // 2, max_epochs=2)
        for name, size in sizes.items()
    ]
    made = export("olmo_core", one_phase({"web": 0.7, "books": 0.3}, domains, chunk_tokens=10 * BATCH))
    config = ten_batches(source_mixture, made)
    mixture = config.build(npdtype=types.NumpyDatasetDType.uint16.as_np_dtype(), sequence_length=CONTEXT)
    tokens = {source.name: sum(path.tokens for path in source.path_tokens) for source in mixture.sources}
    assert sum(tokens.values()) == 10 * BATCH
    assert all(
        abs(tokens[name] / (10 * BATCH) - share) < CONTEXT / BATCH for name, share in {"web": 0.7, "books": 0.3}.items()
    )


@pytest.mark.parametrize(("missing", "batches"), [(0, 10), (100, 9)])
def test_olmo_core_is_short_of_a_batch_where_a_note_says_so(export, tmp_path, missing, batches):
    source_mixture = reader("olmo_core.data.source_mixture")
    sizes = {"books": 2 * BATCH + missing, "web": 8 * BATCH - missing}
    for name, size in sizes.items():
        np.zeros(size, np.uint16).tofile(tmp_path / f"{name}.npy")
    domains = [Domain(name, str(tmp_path / f"{name}.npy"), size, None) for name, size in sizes.items()]
    weights = {name: size / (10 * BATCH) for name, size in sizes.items()}
    made = export("olmo_core", one_phase(weights, domains, chunk_tokens=10 * BATCH))
    config = ten_batches(source_mixture, made)
    mixture = config.build(npdtype=np.uint16, sequence_length=CONTEXT)
    assert sum(path.tokens for source in mixture.sources for path in source.path_tokens) // BATCH == batches
    assert ("second epoch" in " ".join(made.result.notes)) == (batches < 10)


def test_energon_parses_the_metadataset(export):
    dataset_config = reader("megatron.energon.dataset_config")
    metadataset = reader("megatron.energon.metadataset.metadataset_v2")
    made = export("energon")
    path = metadataset.EPath(str(made.folder / "energon.yaml"))
    parsed = dataset_config.load_config(path, default_type=metadataset.MetadatasetV2, default_kwargs={"path": path})
    blend = parsed.splits["train"].blend
    assert {reference.path: reference.weight for reference in blend} == made.stated


def test_megatron_reads_the_blend_and_each_split(export):
    utils = reader("megatron.core.datasets.utils")
    made = export("megatron")
    prefixes, weights = utils.get_blend_from_list((made.folder / "megatron.txt").read_text().split())
    assert dict(zip(prefixes, weights, strict=True)) == made.stated
    for tokens in json.loads((made.folder / "megatron.json").read_text()).values():
        assert utils.get_blend_from_list(tokens) == (prefixes, weights)
