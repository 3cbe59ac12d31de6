"""Megatron-LM and its family: NeMo, NeMo Automodel, GPT-NeoX and Energon.

`megatron`  the list of `--data-args-path`, the JSON of `--per-split-data-args-path`, and one list per phase
`nemo`      the list `paths` of NeMo 2, the same by split as JSON, and `data_prefix` of NeMo 1
`nemo_automodel`  the split `train` of a blend as JSON, and the keys of `dataset` that name it
`gpt_neox`  lists of paths and weights
`energon`   a `MetadatasetV2` with a blend; paths are relative to it

Lists of the first two are read by splitting at white space, so they have no comments. Weights are above 0 and count
samples of a fixed length.
NeMo Automodel fills in environment variables in its YAML ($NAME), and takes what looks like a number or a truth value
there for one; in the JSON it does neither, so paths stand there.
Sources: megatron/core/datasets/utils.py (`get_blend_from_list`), training/utils/common_utils.py, PR #2938 (phases);
GPT-NeoX's configs/neox_arguments.md, megatron/data/data_utils.py; megatron/energon/metadataset/metadataset_v2.py;
nemo-automodel 0.7.0: components/datasets/llm/megatron_dataset.py (`try_load_blend_from_json`),
components/config/loader.py, components/training/domain_mixture.py, examples/llm_pretrain/megatron_pretrain_gpt2.yaml.
"""

from collections.abc import Iterable
from decimal import Decimal

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.exported import PACKED, Written
from tikmix_pipeline.export.schedule import Phase, Schedule
from tikmix_pipeline.export.syntax import Inline, Quoted, block, json_text, quoted, shares_of, text_of, yaml_text

MOST_DATASETS = 32766
MOST_OF_GPT_NEOX = 254


def write_megatron(schedule: Schedule) -> Written:
    """Return the last phase's blend as `megatron.txt` and `megatron.json`, and each phase's as a list of its own.

    Raises:
        TikmixError: a path that a blend cannot hold, or too many domains.
    """
    blends = [_blend(schedule, phase, "Megatron-LM") for phase in schedule.phases]
    by_split = dict.fromkeys(("train", "valid", "test"), _tokens(blends[-1]))
    files = {"megatron.txt": _lines(blends[-1]), "megatron.json": json_text(by_split)}
    switch = "launch with --data-args-path megatron.txt; there is no earlier mixture to switch from."
    if len(blends) > 1:
        files |= {f"megatron.phase_{number}.txt": _lines(blend) for number, blend in enumerate(blends)}
        files["megatron.phases.txt"] = ",".join(str(phase.start_step) for phase in schedule.phases[1:]) + "\n"
        switch = (
            "give every launch --phase-transition-iterations with the list in megatron.phases.txt; the run saves and "
            f"exits at iteration {schedule.last.start_step}, then relaunch it with --data-args-path "
            f"megatron.phase_{len(blends) - 1}.txt."
        )
    samples = (schedule.last.start_step + schedule.chunk_steps) * schedule.batch_sequences
    notes = (
        "megatron.json states the same blend for train, valid and test, so it validates on training text: replace "
        "valid and test by prefixes that were held out. megatron.txt with --split sets documents aside instead.",
        f"With phases give --train-samples {samples} instead of --train-iters, since the bound of the last phase is "
        "read from it, and keep the global batch size.",
    )
    return Written(files, unit=PACKED, switch=switch, notes=notes)


def write_nemo(schedule: Schedule) -> Written:
    """Return the last phase as `nemo.py`, `nemo.json` and `nemo.yaml`; refused is what `write_megatron` refuses."""
    blend = _blend(schedule, schedule.last, "NeMo")
    prefixes = tuple(item for share, path in blend for item in (share, Quoted(path)))
    # the key of the held-out split is not `valid`, as in Megatron-LM
    by_split = dict.fromkeys(("train", "validation", "test"), _tokens(blend))
    rows = (f"    {quoted(text_of(share))}, {quoted(path)}," for share, path in blend)
    return Written(
        {
            "nemo.py": block(["PATHS = [", *rows, "]"]),
            "nemo.json": json_text(by_split),
            "nemo.yaml": yaml_text({"model": {"data": {"data_prefix": prefixes}}}),
        },
        unit=PACKED,
        switch="save, and launch again from the checkpoint with these paths.",
        notes=(
            "nemo.py is for PreTrainingDataModule(paths=PATHS), nemo.json the same argument as a dict, nemo.yaml for "
            "NeMo 1.",
            "nemo.json states the same blend for train, validation and test, so it validates on training text: replace "
            "the last two by prefixes that were held out. A validation set that is read whole takes prefixes without "
            "weights.",
        ),
    )


def write_nemo_automodel(schedule: Schedule) -> Written:
    """Return the last phase as `nemo_automodel.json` and `nemo_automodel.yaml`, which names it.

    Raises:
        TikmixError: what `write_megatron` refuses but blanks, which stand for themselves in JSON.
    """
    shares = shares_of(schedule.last.weights)
    _check_prefixes(schedule, shares, "NeMo Automodel", split_at_blanks=False)
    _check_count(len(shares), MOST_DATASETS, "NeMo Automodel")
    blend = [(share, schedule.domain(name).path) for name, share in shares.items()]
    dataset = {
        "_target_": "nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining",
        "paths": "nemo_automodel.json",
        "seq_length": schedule.context,
        "splits_to_build": "train",
    }
    return Written(
        {
            "nemo_automodel.json": json_text({"train": _tokens(blend)}),
            "nemo_automodel.yaml": yaml_text({"dataset": dataset}),
        },
        unit=PACKED,
        switch="save, and launch again from the checkpoint's weights and optimiser with this blend.",
        notes=(
            "paths is seen from the folder of the launch. The tokenizer, index_mapping_dir and a validation_dataset of "
            "held-out prefixes are yours to add.",
            "A restored data loader would go on in the new blend at the sample where the old one ended, and lose or "
            "repeat text.",
            "domain_mixture (sampling_weight as here, objective_weight the same) logs each domain's tokens at every "
            "step; it needs the list of the JSON as paths.",
        ),
    )


def write_gpt_neox(schedule: Schedule) -> Written:
    """Return the last phase as `gpt_neox.yml`, to be given beside the model's configuration.

    Raises:
        TikmixError: a path that is no prefix, or more domains than GPT-NeoX counts.
    """
    shares = shares_of(schedule.last.weights)
    _check_prefixes(schedule, shares, "GPT-NeoX", split_at_blanks=False)
    _check_count(len(shares), MOST_OF_GPT_NEOX, "GPT-NeoX")
    paths = ", ".join(quoted(schedule.domain(name).path) for name in shares)
    weights = ", ".join(map(text_of, shares.values()))
    lines = ["{"]
    for split in ("train", "valid", "test"):
        lines += [f'  "{split}-data-paths": [{paths}],', f'  "{split}-data-weights": [{weights}],']
    lines += ['  "weight_by_num_documents": false,', "}"]
    return Written(
        {"gpt_neox.yml": block(lines)},
        unit=PACKED,
        switch="none in mid-run: start a new run from the checkpoint, with this file in place of the last one.",
        notes=(
            "Paths of all three splits are required together, so the file validates and tests on the training text: "
            "replace valid-data-paths and test-data-paths by prefixes that were held out.",
            "train_epochs must not be set: any weight but 1.0 then raises ValueError. weight_by_num_documents stays "
            "false, or these weights are ignored.",
        ),
    )


def write_energon(schedule: Schedule) -> Written:
    """Return the last phase as `energon.yaml`, with a blend for the split `train`."""
    blend = [
        Inline(weight=share, path=Quoted(schedule.domain(name).path))
        for name, share in shares_of(schedule.last.weights).items()
    ]
    kind = {"__module__": "megatron.energon", "__class__": "MetadatasetV2"}
    return Written(
        {"energon.yaml": yaml_text({**kind, "splits": {"train": {"blend": blend}}})},
        unit="samples, so tokens where every sample is a packed sequence of one length",
        switch="none in mid-run: save, and launch again from the checkpoint with this file.",
        notes=(
            "Paths are relative to the folder of this file. It has no split `val`: add one with held-out data.",
            "Samples that are packed only after blending make the weights count samples of any length.",
        ),
    )


def _blend(schedule: Schedule, phase: Phase, trainer: str) -> list[tuple[Decimal, str]]:
    shares = shares_of(phase.weights)
    _check_prefixes(schedule, shares, trainer, split_at_blanks=True)
    _check_count(len(shares), MOST_DATASETS, trainer)
    return [(share, schedule.domain(name).path) for name, share in shares.items()]


def _lines(blend: Iterable[tuple[Decimal, str]]) -> str:
    return block(f"{text_of(share)} {path}" for share, path in blend)


def _tokens(blend: Iterable[tuple[Decimal, str]]) -> list[str]:
    return [token for share, path in blend for token in (text_of(share), path)]


def _check_prefixes(schedule: Schedule, names: Iterable[str], trainer: str, *, split_at_blanks: bool) -> None:
    """Refuse paths that end as only files do, that would pass for weights, or that would be split."""
    for name in names:
        path = schedule.domain(name).path
        if split_at_blanks and path.split() != [path]:
            raise TikmixError(
                f"{trainer} splits its list of data at white space, and the path of the domain '{name}' has some: "
                f"'{path}'. Rename the file or link to it by a path without blanks."
            )
        if path.endswith((".bin", ".idx")):
            raise TikmixError(
                f"{trainer} takes the prefix of a domain's .bin and .idx files, and the path of the domain '{name}' is "
                f"'{path}'. Leave out its last four characters."
            )
        try:
            float(path)
        except ValueError:
            continue
        raise TikmixError(
            f"{trainer} would take the path of the domain '{name}', '{path}', for a weight. Write it as './{path}'."
        )


def _check_count(count: int, most: int, trainer: str) -> None:
    if count > most:
        raise TikmixError(
            f"{trainer} blends at most {most} data sets, and the mixture has {count} domains with weight. Merge small "
            "domains, or export to a trainer without such a limit."
        )
