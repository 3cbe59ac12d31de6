"""Trainers that have `datasets` interleave the documents of their data sets: LLaMA-Factory and ms-swift.

`llama_factory`  keys of a training file (`interleave_probs`), and the domains' entries of `dataset_info.json`
`ms_swift`       keys of the file that `swift pt` takes (`interleave_prob`)

Both mix documents before they are cut to sequences, so probabilities count documents (`by_documents`). Both stream:
mixed as tables, a data set would be as long as it takes to see the last document of the last domain, and a domain of
1 in 10,000 makes that ten thousand times its documents.
Sources, LLaMA-Factory 0.9.5: hparams/data_args.py (names and probabilities are split at commas; `packing: true` makes
sequences one token shorter, which no value does in pre-training), hparams/parser.py (OmegaConf reads the file),
data/data_utils.py (`merge_dataset`), data/loader.py (as many shards as `dataloader_num_workers`, so none for 0),
data/parser.py, data/processor/pretrain.py. ms-swift 4.6.0: arguments/base_args/{data_args,template_args}.py,
dataset/{loader,dataset_syntax}.py, cli/main.py (values become words of a command line).
"""

from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.export.exported import DOCUMENTS, Written
from tikmix_pipeline.export.python_code import by_documents
from tikmix_pipeline.export.schedule import Schedule
from tikmix_pipeline.export.syntax import Quoted, Shares, json_text, text_of, yaml_text

_LASTS = (
    "Once a domain ends it starts over, until all have ended once. The share of tokens holds on average, where every "
    "document is trained on whole."
)


def write_llama_factory(schedule: Schedule) -> Written:
    """Return the last phase as `llama_factory.yaml`, and the entries of its domains as a JSON.

    Raises:
        TikmixError: a domain's mean number of tokens per document is not known, or LLaMA-Factory would read its name
            as something else.
    """
    documents, realised = by_documents(schedule, "LLaMA-Factory")
    _check_names(documents)
    config = {
        "stage": "pt",
        "dataset": Quoted(",".join(documents)),
        "mix_strategy": "interleave_over",
        "interleave_probs": Quoted(",".join(map(text_of, documents.values()))),
        "streaming": True,
        "dataloader_num_workers": 1,
        "cutoff_len": schedule.context,
        **_steps(schedule),
    }
    entries = {name: {"file_name": schedule.domain(name).path, "columns": {"prompt": "text"}} for name in documents}
    return Written(
        {"llama_factory.yaml": yaml_text(config), "llama_factory.dataset_info.json": json_text(entries)},
        unit=DOCUMENTS,
        switch=_switch(schedule, "llama_factory.yaml", "llamafactory-cli train"),
        notes=(
            "Merge it into the training file, and llama_factory.dataset_info.json into dataset_info.json of "
            "dataset_dir. Its paths are files or folders seen from there, no patterns; the column of the documents is "
            "taken to be `text`.",
            "dataloader_num_workers has to be 1 at least: with 0, no data set has anything to read in streaming.",
            _LASTS,
        ),
        realised=realised,
    )


def write_ms_swift(schedule: Schedule) -> Written:
    """Return the last phase as `ms_swift.yaml`, for `swift pt`.

    Raises:
        TikmixError: a domain's mean number of tokens per document is not known, or its path would pass for an option.
    """
    documents, realised = by_documents(schedule, "ms-swift")
    for name in documents:
        path = schedule.domain(name).path
        if path.startswith("-"):
            raise TikmixError(
                f"ms-swift would take the path of the domain '{name}', '{path}', for an option. Write it as './{path}'."
            )
    config = {
        "dataset": tuple(Quoted(schedule.domain(name).path) for name in documents),
        "interleave_prob": tuple(documents.values()),
        "stopping_strategy": "all_exhausted",
        "streaming": True,
        "max_length": schedule.context,
        "packing": True,
        "truncation_strategy": "split",
        **_steps(schedule),
    }
    return Written(
        {"ms_swift.yaml": yaml_text(config)},
        unit=DOCUMENTS,
        switch=_switch(schedule, "ms_swift.yaml", "swift pt"),
        notes=(
            "Merge it into the file of `swift pt`. A path is a file or a folder that is there; one that is not would "
            "be looked up as the name of a data set, and what follows # or : in it read as a sample size or a subset.",
            "truncation_strategy stays `split`: the default drops documents longer than max_length, which changes the "
            "shares.",
            "packing asks for a flash attention (attn_impl). Without it shares are the same, but rows are padded, so "
            "that a step has fewer tokens, and max_steps makes a shorter chunk.",
            _LASTS,
        ),
        realised=realised,
    )


def _steps(schedule: Schedule) -> dict[str, Any]:
    end = schedule.last.start_step + schedule.chunk_steps
    # otherwise the Trainer reads as many batches of the new mixture as were trained, and throws them away
    return {"max_steps": end} | ({"ignore_data_skip": True} if schedule.last.start_step else {})


def _switch(schedule: Schedule, file: str, command: str) -> str:
    if not schedule.last.start_step:
        return f"{command} with {file}; there is no earlier mixture to switch from."
    return (
        f"{command} with {file} and resume_from_checkpoint: the checkpoint of step {schedule.last.start_step}; "
        "ignore_data_skip keeps it from reading on behind what was trained."
    )


def _check_names(documents: Shares) -> None:
    for name in documents:
        if "," in name or "${" in name:
            raise TikmixError(
                f"LLaMA-Factory splits its list of data sets at commas and fills in what stands in ${{}}, and a domain "
                f"is named '{name}'. Give it a name without either."
            )
