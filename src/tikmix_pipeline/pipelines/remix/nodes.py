"""Nodes that take a sample of a team's text and its checkpoint, and tell the team what to train on next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.export.registry import read_summary
from tikmix_pipeline.mixture.external_run import EarlierRound, SampledDomain, external_run_budget
from tikmix_pipeline.mixture.recording import mixture_table
from tikmix_pipeline.mixture.records import DecisionRecord, Gains, MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.base import NoParameters, OnDisk, View, unrecorded
from tikmix_pipeline.parameters.corpus import ShardParameters
from tikmix_pipeline.parameters.decision import (
    DirectParameters,
    PriorParameters,
    StrategyParameters,
)
from tikmix_pipeline.parameters.measurement import CalibratedParameters
from tikmix_pipeline.parameters.remix import ExternalParameters, RemixParameters
from tikmix_pipeline.parameters.training import ContextParameters, LoadParameters, ModelParameters
from tikmix_pipeline.pipelines.remix.external import given_mixture, given_prediction

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.records import PreparedText
    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.influence.prediction_score import PredictionScore
    from tikmix_pipeline.influence.report import Measurement, SpreadRecord
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.report.remix_report import RemixReport
    from tikmix_pipeline.report.whatif_records import WhatIfProblem

_LOG = logging.getLogger(__name__)


class SampleTokensView(View):
    """How the sample becomes token ids: by the checkpoint's tokenizer, wherever that lies."""

    corpus: ShardParameters
    tokenizer: OnDisk
    tokenizer_folder: str = unrecorded()
    tokenizer_parameter: str = unrecorded()


class AdoptedView(View):
    """What tells one checkpoint from another: its weights, wherever they lie and whatever else lies beside them."""

    train: ContextParameters
    files: OnDisk
    model: ModelParameters = unrecorded()


class ExternalView(View):
    """What the team tells of its run."""

    remix: ExternalParameters
    tikmix: PriorParameters
    chunk_tokens: int
    file: OnDisk
    experiment: str = unrecorded()


class ReportView(View):
    """What the report says besides what was measured and decided."""

    experiment: str
    checkpoint: str
    optimize: DirectParameters
    seed: int
    page: OnDisk
    rounds: int
    """How many measurements the decision is the mean of."""
    without_path: tuple[str, ...]
    """Domains that `reweight.paths` does not have."""
    model: LoadParameters = unrecorded()


class WhatIfView(View):
    """What the what-if page says besides what was measured and decided."""

    experiment: str
    checkpoint: str
    tikmix: StrategyParameters
    influence: CalibratedParameters
    page: OnDisk


class PredictionView(View):
    """Which prediction is scored, and at which round."""

    remix: RemixParameters = unrecorded()
    file: OnDisk
    number: int


def tokenize_sample(view: SampleTokensView, text: PreparedText, project: Path) -> Callable[[Path], Any]:
    """Write every domain and task as token ids of the checkpoint's tokenizer."""
    from tikmix_pipeline.corpus.build import write_corpus
    from tikmix_pipeline.corpus.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(project / view.tokenizer_folder, view.tokenizer_parameter)
    return partial(write_corpus, view.corpus, text, tokenizer, project)


def adopt_checkpoint(view: AdoptedView, corpus: TokenShards, project: Path) -> Callable[[Path], Any]:
    """Take the user's checkpoint as this round's; refuse an unknown architecture, and text that does not fit it."""
    from tikmix_pipeline.lm.checkpoint import Checkpoint, adopt
    from tikmix_pipeline.lm.known_ids import require_known_ids

    corpus.require_windows(view.train.context)
    checkpoint = Checkpoint(project / str(view.model.checkpoint))
    outline = checkpoint.outline(view.model)
    require_known_ids(corpus, len(outline.get_input_embeddings().weight), checkpoint.folder)
    return partial(adopt, checkpoint, tokenizer=corpus.tokenizer_folder)


def count_external(
    view: ExternalView,
    checkpoint: Checkpoint,
    corpus: TokenShards,
    project: Path,
    budget_before: TokenBudget | None = None,
    decided: MixtureRecord | None = None,
) -> tuple[TokenBudget, MixtureRecord]:
    """Say what the external run has read, what is left and which mixture is its current one."""
    del checkpoint  # only so that nothing is recorded for one that was refused
    return external_budget(view, sampled_domains(corpus), project, budget_before, decided)


def sampled_domains(corpus: TokenShards) -> dict[str, SampledDomain]:
    """Return what the sample tells of every domain."""
    sources = corpus.manifest.sources.domains
    return {
        domain: SampledDomain(
            tokens=corpus.tokens(domain),
            bytes_per_token=corpus.bytes_per_token(domain),
            total_bytes=sources[domain].total_bytes,
            is_estimate=bool(sources[domain].sampled),
        )
        for domain in corpus.domains
    }


def external_budget(
    view: ExternalView,
    samples: Mapping[str, SampledDomain],
    project: Path,
    budget_before: TokenBudget | None = None,
    decided: MixtureRecord | None = None,
) -> tuple[TokenBudget, MixtureRecord]:
    """Return the token budget and the current mixture of the external run, the round before given if there is one."""
    earlier = EarlierRound(budget_before, decided) if budget_before and decided else None
    return external_run_budget(
        0 if earlier is None else earlier.budget.round + 1,
        samples,
        view.remix,
        prior=view.tikmix.prior,
        chunk_tokens=view.chunk_tokens,
        given=given_mixture(view.remix, project, view.experiment),
        earlier=earlier,
    )


def list_current(view: NoParameters, current: MixtureRecord) -> pd.DataFrame:
    """Add the current mixture to the catalog of mixtures."""
    return mixture_table(current)


def write_report(
    view: ReportView,
    checkpoint: Checkpoint,
    influence: pd.DataFrame,
    budget: TokenBudget,
    current: MixtureRecord,
    mixture: MixtureRecord,
    decision: DecisionRecord,
    gains: Gains,
    measurement: Measurement,
    exports: Path | None = None,
) -> tuple[RemixReport, str]:
    """Gather what the round has recorded, and lay it out as a page."""
    from importlib.metadata import version

    from tikmix_pipeline.report.page import render_report
    from tikmix_pipeline.report.remix_records import RoundRecords, report_from_records

    records = RoundRecords(
        budget=budget,
        current=current,
        mixture=mixture,
        decision=decision,
        gains=gains,
        measurement=measurement,
        influence=influence.to_dict("records"),
        exports=read_summary(exports) if exports else (),
        rounds=view.rounds,
    )
    report = report_from_records(
        records,
        view.optimize,
        checkpoint=view.checkpoint,
        model=checkpoint.architecture,
        parameters=checkpoint.parameter_count(view.model),
        experiment=view.experiment,
        seed=view.seed,
        version=version("tikmix-pipeline"),
        without_path=view.without_path,
    )
    return report, render_report(report)


def write_whatif(
    view: WhatIfView,
    budget: TokenBudget,
    decision: DecisionRecord,
    spread: SpreadRecord,
    problem: WhatIfProblem | None = None,
) -> str:
    """Lay out the page that decides anew wherever its reader moves weights, tolerances and bounds."""
    from tikmix_pipeline.report.whatif_page import render_whatif

    return render_whatif(
        problem if view.tikmix.strategy == "direct" else None,
        decision,
        spread,
        budget,
        experiment=view.experiment,
        checkpoint=view.checkpoint,
        calibration=view.influence.calibration,
    )


def score_prediction(
    view: PredictionView, before: Measurement, after: Measurement, current: MixtureRecord, project: Path
) -> PredictionScore:
    """Hold the prediction of the round before against the losses at its checkpoint and at this one."""
    from tikmix_pipeline.influence.prediction_score import score_lines, score_prediction

    predicted = given_prediction(project / str(view.remix.prediction))
    score = score_prediction(
        view.number - 1, predicted.gains, predicted.mixture, current.weights, before=before, after=after
    )
    _LOG.info("%s", "\n".join(score_lines(score)))
    return score
