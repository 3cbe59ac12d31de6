"""Accuracy and normalised accuracy of a checkpoint, measured by EleutherAI's lm-eval (the extra `[eval]`).

A task of multiple choice is scored by the log-likelihood of each option after the question: `acc` counts the items
whose most likely option is the gold one, `acc_norm` those where it is so per character of the option. Both are means of
0 and 1, so their intervals are binomial (Wilson, 95 %).

The items are read as for bits per byte (`corpus.tasks`): after the token that begins a document, cut from the left
where they do not fit into the model's context. Only lm-eval's scoring and task format are used: the model and its
tokenizer are loaded from the checkpoint's folder, and nothing is downloaded for tasks whose data are local files.
"""

import difflib
import importlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from tikmix_pipeline.corpus.tasks import Item
from tikmix_pipeline.distributed.mesh import resolve_device
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing
from tikmix_pipeline.lm.model import load_model
from tikmix_pipeline.parameters.comparison import HarnessParameters
from tikmix_pipeline.parameters.training import LoadParameters
from tikmix_pipeline.progress import progress_bar
from tikmix_pipeline.statistics import wilson_interval

ACCURACIES = ("acc", "acc_norm")
TAG = "tikmix"
"""Stands for all tasks that `write_lm_eval_tasks` wrote, and begins the name of each."""


@dataclass(frozen=True)
class LmEvalScore:
    """An accuracy with its 95 % interval."""

    task: str
    """Or group."""
    metric: str
    """`acc` or `acc_norm`."""
    value: float
    """Share of items answered rightly."""
    low: float
    high: float
    n: int
    """Items; those of a group's tasks together."""


def check_lm_eval(parameters: HarnessParameters, corpus_tasks: Collection[str], root: Path) -> None:
    """Refuse, before anything is trained, what no checkpoint could be scored on.

    Whether a task of the corpus offers a choice, and whether the data of any other can be read, is not known here.
    `include_path` starts from `root`.

    Raises:
        TikmixError: `include_path` is no folder, a task is unknown, or lm-eval is not installed.
    """
    folders = [root / parameters.include_path] if parameters.include_path else []
    _require_folders(folders)
    written = [TAG, *(f"{TAG}_{task}" for task in corpus_tasks)]
    others = [name for name in parameters.tasks if name not in written]
    for name in others:
        if name.startswith(f"{TAG}_"):
            raise TikmixError(
                f"compare.harness.tasks: {name!r} is none of the corpus's tasks.{_nearest(name, written, 1)} There are "
                f"{', '.join(written)}."
            )
    _import("lm_eval.models.huggingface")
    _task_manager(others, folders, written)


def write_lm_eval_tasks(tasks: Mapping[str, Sequence[Item]], folder: Path) -> list[str]:
    """Write tasks in lm-eval's format, `<task>.yaml` beside `<task>.jsonl`, in place of what the folder held.

    All items offer a choice. The folder is what `include_paths` of `lm_eval_scores`, or `--include_path` of lm-eval, is
    to be. The files name their data by absolute path, as lm-eval reads them: write them again where the folder has
    moved.

    Returned are the names of the tasks: `tikmix_<task>`, so that none is mistaken for lm-eval's task of that name, of
    which it may hold but a part. The tag `tikmix` stands for all.
    """
    folder = folder.resolve()
    with replacing(folder) as temporary:
        temporary.mkdir(parents=True)
        for task, choices in tasks.items():
            rows = ({"prompt": one.prompt, "options": list(one.options), "gold": one.gold} for one in choices)
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (temporary / f"{task}.jsonl").write_text(lines, encoding="utf-8")
            config = _task_config(f"{TAG}_{task}", folder / f"{task}.jsonl")
            (temporary / f"{task}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return [f"{TAG}_{task}" for task in tasks]


def _task_config(name: str, data: Path) -> dict[str, Any]:
    return {
        "task": name,
        "tag": TAG,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        # names of fields, which unlike templates are taken as they stand
        "doc_to_text": "prompt",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        "target_delimiter": " ",
        "num_fewshot": 0,
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ACCURACIES],
        "metadata": {"version": 1.0},
    }


def lm_eval_scores(
    checkpoint: Path,
    parameters: HarnessParameters,
    *,
    include_paths: Sequence[Path] = (),
    model: LoadParameters,
    device: str = "auto",
) -> list[LmEvalScore]:
    """Return a checkpoint's score per accuracy of each task, in the order asked for.

    A group has one score over the items of all of its tasks; a tag has those of each. Tasks are found and their data
    read before the model is.

    Args:
        checkpoint: a folder in Hugging Face format, with its tokenizer.
        parameters: which tasks, and how. Its `include_path` is one of `include_paths` by now.
        include_paths: folders with task files; what they name goes before lm-eval's tasks of that name.

    Raises:
        TikmixError: lm-eval is not installed; a task is unknown, its data cannot be read, or it has no accuracy; the
            checkpoint cannot be read.
    """
    units = _load_units(parameters.tasks, include_paths)
    tasks = {task.task_name: task for unit in units.values() for task in unit}
    _require_accuracies(units)
    for task in tasks.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_import("lm_eval.defaults").DEFAULT_OTHER_SEED)
    scorer = load_scorer(checkpoint, parameters, model, device)
    found = _import("lm_eval").evaluate(
        scorer, {"tasks": tasks}, limit=parameters.limit, bootstrap_iters=0, log_samples=False
    )
    counts = {name: int(samples["effective"]) for name, samples in found["n-samples"].items()}
    return [
        _pooled(name, metric, [(found["results"][task.task_name], counts[task.task_name]) for task in unit])
        for name, unit in units.items()
        for metric in ACCURACIES
        if all(metric in task.aggregation() for task in unit)
    ]


def _pooled(name: str, metric: str, results: Sequence[tuple[Mapping[str, Any], int]]) -> LmEvalScore:
    n = sum(count for _, count in results)
    value = sum(result[f"{metric},none"] * count for result, count in results) / n
    return LmEvalScore(name, metric, value, *wilson_interval(value, n), n)


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TikmixError(
            f'compare.harness.tasks need the library lm-eval ({error}): run `pip install -e ".[eval]"` in the '
            "project's folder, or leave compare.harness.tasks empty."
        ) from error


def _load_units(names: Sequence[str], include_paths: Sequence[Path]) -> dict[str, list[Any]]:
    """Load the tasks of every name, with their data; the tasks of a tag are units of their own."""
    manager = _task_manager(names, include_paths)
    units: dict[str, list[Any]] = {}
    for name in names:
        try:
            loaded = manager.load([name])
        except Exception as error:  # data sets and the functions of a task raise whatever they like
            raise TikmixError(
                f"compare.harness.tasks: the data of {name!r} cannot be read ({type(error).__name__}: {error}). "
                "lm-eval's own tasks are downloaded from the Hugging Face Hub, and may need a network; the corpus's "
                f"own ({TAG}) need none."
            ) from error
        tasks = list(loaded["tasks"].values())
        units |= {name: tasks} if name in loaded["groups"] else {task.task_name: [task] for task in tasks}
    return units


def _task_manager(names: Sequence[str], include_paths: Sequence[Path], written: Sequence[str] = ()) -> Any:
    """Index the task files; lm-eval's own, which are thousands, only where they are asked for.

    All `names` must be in the index; those `written` may have been meant as well.
    """
    _require_folders(include_paths)
    task_manager = _import("lm_eval.tasks").TaskManager
    manager = task_manager(include_path=list(include_paths), include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = task_manager(include_path=list(include_paths))
    for name in names:
        if name not in manager.all_tasks:
            raise TikmixError(
                f"compare.harness.tasks: lm-eval has no task {name!r}, and neither has compare.harness.include_path."
                f"{_nearest(name, [*written, *manager.all_tasks])}"
            )
    return manager


def _require_folders(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_dir():
            raise TikmixError(f"compare.harness.include_path: there is no folder {path}.")


def _nearest(name: str, names: Sequence[str], most: int = 3) -> str:
    """Return the end of a message about an unknown name: what it may have been meant to be."""
    nearest = difflib.get_close_matches(name, names, n=most)
    return f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""


def _require_accuracies(units: Mapping[str, Sequence[Any]]) -> None:
    for name, tasks in units.items():
        for task in tasks:
            metrics = list(task.aggregation())
            if not set(ACCURACIES) & set(metrics):
                raise TikmixError(
                    f"compare.harness.tasks: {name!r} is scored by {', '.join(metrics)}, not by accuracy "
                    f"({' or '.join(ACCURACIES)}). Leave it out, and run lm-eval on the checkpoint by itself."
                )


def load_scorer(checkpoint: Path, parameters: HarnessParameters, model: LoadParameters, device: str) -> Any:
    """Load a checkpoint as a model of lm-eval's (`lm_eval.api.model.LM`).

    A TikmixError says that lm-eval is not installed, or that the model or its tokenizer cannot be read.
    """
    from transformers import AutoTokenizer

    network = load_model(checkpoint, model).to(resolve_device(device))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(checkpoint), local_files_only=True, trust_remote_code=model.trust_remote_code
        )
    except Exception as error:  # transformers raises whatever the files make it raise
        raise TikmixError(
            f"The tokenizer in {checkpoint} cannot be read ({type(error).__name__}: {error}). Save it there "
            "(AutoTokenizer.save_pretrained)."
        ) from error
    scorer_class = _scorer_class()
    with _errors_only("lm_eval"):  # it warns of any model that it has not loaded itself
        scorer = scorer_class(network, tokenizer=tokenizer, batch_size=parameters.batch_size)
    scorer.document_start = parameters.document_start
    return scorer


def _scorer_class() -> Any:
    """Return lm-eval's model for transformers, made to read items as `corpus.tasks` does."""
    base: Any = _import("lm_eval.models.huggingface").HFLM

    class Scorer(base):  # type: ignore[misc]
        document_start = True

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            question_ids, answer_ids = super()._encode_pair(context, continuation)
            if self.document_start and question_ids[:1] != [self.prefix_token_id]:
                question_ids = [self.prefix_token_id, *question_ids]
            answer_ids = answer_ids[: self.max_length]
            return question_ids[-(self.max_length + 1 - len(answer_ids)) :], answer_ids

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
            del disable_tqdm
            with progress_bar("lm-eval", len(requests), "option") as bar:
                self.set_cache_hook(SimpleNamespace(add_partial=lambda *_: bar.update()))  # of each that is answered
                return super().loglikelihood(requests, disable_tqdm=True)

    return Scorer


@contextmanager
def _errors_only(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
