"""Nodes that take a checkpoint of a run elsewhere, and what its team tells of the run."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import read_json, sampled_signature, sha256_of_file
from tikmix_pipeline.parameters import (
    ModelParameters,
    RemixParameters,
    RunParameters,
    TikmixParameters,
    TrainParameters,
)
from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import Checkpoint, Table, TokenShards


def relevant_to_checkpoint(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    """Say what tells one checkpoint from another: its weights, wherever they lie and whatever else lies beside them."""
    del round_number
    folder = root / (parameters.model.checkpoint or "")
    weights = sorted(folder.glob("*.safetensors")) if parameters.model.checkpoint else []
    return {
        "files": sampled_signature([*folder.glob("config.json"), *weights] if weights else []),
        "model": parameters.model.model_dump(mode="json", include={"attention", "trust_remote_code"}),
    }


def _relevant_to_stock(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number
    current = parameters.remix.current
    is_file = isinstance(current, str) and (root / current).is_file()
    return {
        "remix": parameters.remix.model_dump(mode="json", exclude={"chunk_tokens"}),
        "file": sha256_of_file(root / str(current)) if is_file else None,
        "chunk": {"tokens": parameters.remix.coming_chunk(parameters.train)},
        "tikmix": parameters.tikmix.model_dump(mode="json", include={"prior"}),
    }


@step(relevant_to_checkpoint)
def adopt_checkpoint(
    corpus: TokenShards, model: ModelParameters, train: TrainParameters, project: Path
) -> Callable[[Path], Any]:
    """Take the user's checkpoint as this round's; refuse text too short to be measured at it."""
    from tikmix_pipeline.lm.checkpoint import Checkpoint, adopt

    for domain in corpus.domains:
        for split in ("train", "heldout"):
            corpus.windows(domain, train.context, split)
    checkpoint = Checkpoint(project / str(model.checkpoint))
    checkpoint.require_known_ids(corpus.vocabulary_size)
    return partial(adopt, checkpoint, tokenizer=corpus.tokenizer_folder)


@step(_relevant_to_stock)
def take_stock_elsewhere(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    remix: RemixParameters,
    tikmix: TikmixParameters,
    train: TrainParameters,
    project: Path,
    experiment: str,
    stock_before: Mapping[str, Any] | None = None,
    decided: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Say what the run elsewhere has read, what is left and which mixture is in force."""
    from tikmix_pipeline.mixture.external_run import EarlierRound, external_run_budget
    from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget

    del checkpoint  # only so that nothing is recorded for one that was refused
    earlier = None
    if stock_before and decided:
        earlier = EarlierRound(TokenBudget.from_json(stock_before), MixtureRecord.from_json(decided))
    budget, record = external_run_budget(
        0 if earlier is None else earlier.budget.round + 1,
        {domain: _sampled(corpus, domain) for domain in corpus.domains},
        remix,
        prior=tikmix.prior,
        chunk_tokens=remix.coming_chunk(train),
        given=given_mixture(remix, project, experiment),
        earlier=earlier,
    )
    return budget.to_json(), record.to_json()


def _sampled(corpus: TokenShards, domain: str) -> Any:
    from tikmix_pipeline.mixture.external_run import SampledDomain

    source = corpus.manifest["sources"]["domains"][domain]
    return SampledDomain(
        tokens=corpus.tokens(domain),
        bytes_per_token=corpus.bytes_per_token(domain),
        total_bytes=source.get("total_bytes"),
        is_estimate=bool(source.get("sampled")),
    )


def given_mixture(remix: RemixParameters, root: Path, experiment: str) -> Mapping[str, float] | None:
    """Return the mixture in force as the user gives it, as weights or as a file; None where it is not given.

    Raises:
        TikmixError: the file is missing, holds no weights or is of another experiment.
    """
    if not isinstance(remix.current, str):
        return remix.current
    path = root / remix.current
    if not path.is_file():
        raise TikmixError(f"remix.current: there is no file {path}. Give weights by domain, or a mixture.json.")
    content = read_json(path)
    weights = content.get("weights", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(weight, int | float) for weight in weights.values()):
        raise TikmixError(
            f"remix.current: {path} holds no weights. Expected a JSON object of domains and weights, or one with such "
            "an object as `weights`."
        )
    owner = _owner(path, root)
    if owner not in (None, experiment):
        raise TikmixError(
            f"remix.current: {path} is a mixture of the experiment '{owner}', and this one is '{experiment}'. If the "
            "run was trained under it all the same, give its weights themselves; otherwise set experiment."
        )
    return weights


def _owner(path: Path, root: Path) -> str | None:
    """Return the experiment whose folder a file lies in, if it lies in one's."""
    experiments = (root / "data" / "07_model_output").resolve()
    path = path.resolve()
    return path.relative_to(experiments).parts[0] if path.is_relative_to(experiments) else None


@step(nothing)
def list_in_force(in_force: Mapping[str, Any]) -> Table:
    """Add the mixture in force to the catalog of mixtures."""
    from tikmix_pipeline.mixture.recording import mixture_table
    from tikmix_pipeline.mixture.records import MixtureRecord

    return mixture_table(MixtureRecord.from_json(in_force))
