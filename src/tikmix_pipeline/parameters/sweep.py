"""`sweep`: TiKMiX-M, from candidate mixtures and a measured response of each to a mixture."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from tikmix_pipeline.parameters.base import UNRECORDED, Names, ParameterGroup, only_if
from tikmix_pipeline.parameters.training import ScheduleParameters

Response = Literal["influence", "lookahead", "table"]
TableSurrogate = Literal["xgboost", "ridge", "gp", "linear", "loglinear"]
"""Surrogates that learn from mixtures and responses alone."""
SurrogateKind = TableSurrogate | Literal["response"]

TABLE_SURROGATES: tuple[TableSurrogate, ...] = ("xgboost", "ridge", "gp", "linear", "loglinear")
SURROGATE_KINDS: tuple[SurrogateKind, ...] = (*TABLE_SURROGATES, "response")

_COMPARED: tuple[TableSurrogate, ...] = ("xgboost", "ridge", "gp", "linear")


class TableParameters(ParameterGroup):
    """A user's own mixtures and scores, as CSV files of Olmix or RegMix; paths are absolute, or relative to the
    project."""

    ratios: str | None = None
    """One row per run: its id and the share of each domain."""
    metrics: str | None = None
    """One row per run: its id and a score per target, a loss or what `higher_is_better` names."""
    test_ratios: str | None = None
    """Runs that no surrogate is fitted on; with them, the verdict is theirs."""
    test_metrics: str | None = None
    """Their scores."""
    domain_prefix: str = ""
    """Cut from the names of the domains, e.g. `train_the_pile_`."""
    metric_prefix: str = ""
    """Cut from the names of the targets, e.g. `metric/the_pile_`."""
    metric_suffix: str = ""
    """Cut from their ends, e.g. `_val_loss`."""
    targets: Names | None = None
    """Columns of the metrics that are targets, as the file calls them; on the command line `mmlu_acc+arc_acc`. null:
    all, and one that looks like no metric (`step`, `seed`) is asked about."""
    higher_is_better: list[str] | Literal["auto"] = "auto"
    """Targets that are the better the higher; `auto` goes by their names (`acc`, `f1`), and says which."""
    far_runs: Literal["leave_out", "keep"] = "leave_out"
    """What becomes of runs that score far from all others, as those do that diverged. They are named either way; more
    than a tenth of the runs are not left out, but refused."""

    split: dict[str, Names] = Field(default_factory=dict)
    """Beside branches: domains of the table that this run has in parts, `{web: [news, blogs]}`; a mixture's share of
    the first is divided among them in proportion to their tokens."""

    @field_validator("higher_is_better", mode="before")
    @classmethod
    def _keep_auto(cls, value: Any) -> Any:
        return value.split("+") if isinstance(value, str) and value != "auto" else value


class SearchParameters(ParameterGroup):
    """Algorithm 1 of the paper: Dirichlet draws around the best mixture, from wide to narrow."""

    rounds: PositiveInt = 20
    """Draws around the best mixture so far."""
    samples: PositiveInt = 4_096
    """Draws per round."""
    top: PositiveInt = 32
    """Of these, the best, whose mean is the next centre."""
    coarse: PositiveFloat = 50.0
    """Concentration of the first round: a Dirichlet with `α = concentration · w` has a standard deviation of
    `√(w (1 - w) / (concentration + 1))` per domain."""
    fine: PositiveFloat = 5_000.0
    """Concentration of the last round."""

    @model_validator(mode="after")
    def _require_order(self) -> "SearchParameters":
        if self.fine < self.coarse:
            raise ValueError(f"fine ({self.fine:g}) is below coarse ({self.coarse:g}): the search goes to the finer")
        if self.top > self.samples:
            raise ValueError(f"top ({self.top}) is more than samples ({self.samples}): lower the first")
        return self


class DrawnParameters(ParameterGroup):
    """Which surrogate is searched, and drawn."""

    surrogate: SurrogateKind | Literal["auto"] = "auto"
    """`response` is a Gaussian process around what influence tells to second order; `auto` is that for a sequential
    design, and `xgboost` else."""

    @property
    def kind(self) -> SurrogateKind:
        """Return which surrogate that is."""
        return "xgboost" if self.surrogate == "auto" else self.surrogate


class SurrogateParameters(DrawnParameters):
    """Which regression is fitted, on which responses."""

    response: Response = "influence"
    """`influence` is the paper's: Group Influence of a sample of tokens drawn by the candidate, from parts that are
    measured already. `lookahead` trains a short branch under every candidate. `table` reads CSV files."""
    target: Literal["each", "aggregate"] = "each"
    """A model per task, or one of the objective itself."""
    objective: Literal["direct", "sum"] = "direct"
    """What is searched for: TiKMiX-D's objective on predicted responses, or the highest sum of normalised gains. With
    the surrogate `response` it is the highest mean gain in nats."""


class FittedParameters(SurrogateParameters):
    """How a surrogate is fitted; what is searched for counts where it is itself what is predicted."""

    folds: Annotated[int, Field(ge=2)] = 5
    """Of the cross-validations, the outer one for quality and the inner one for hyper-parameters; fewer where there are
    not two mixtures for each. Runs of one mixture are in one fold."""
    objective: Annotated[Literal["direct", "sum"], only_if("target", "aggregate")] = "direct"
    """What is searched for: TiKMiX-D's objective on predicted responses, or the highest sum of normalised gains. With
    the surrogate `response` it is the highest mean gain in nats."""


class JudgementParameters(FittedParameters):
    """Which regressions are judged."""

    compared: Annotated[list[TableSurrogate], Field(min_length=1)] = Field(default_factory=lambda: [*_COMPARED])
    """Surrogates whose quality is reported; the one that is searched is always among them."""

    @property
    def all_compared(self) -> list[SurrogateKind]:
        """Surrogates to judge, in the order of the registry."""
        return [kind for kind in SURROGATE_KINDS if kind in {*self.compared, self.kind}]


class SearchedParameters(SurrogateParameters):
    """How the fitted surrogate is searched."""

    require_better: bool = True
    """Keep D's mixture if the surrogate predicts no better than chance, or than the additive influence `S w`; over
    tables, refuse to decide if it predicts no better than chance, or than rules that need no run."""
    search: SearchParameters = SearchParameters()


class DesignParameters(ParameterGroup):
    """Which mixtures are candidates."""

    response: Response = "influence"
    candidates: Annotated[int, Field(ge=12)] = 256
    """At least 8 of them have to come through."""
    design: Literal["auto", "sequential", "latin_hypercube", "dirichlet"] = "auto"
    """`sequential` trains a few branches, each chosen for what is expected of it; `latin_hypercube` draws around
    TiKMiX-D's mixture, and `dirichlet` around the prior as RegMix does. `auto` is `sequential` for `lookahead` where
    D's gains are of second order, and `latin_hypercube` else."""
    low: Annotated[float, Field(gt=0, le=1), only_if("design", "latin_hypercube")] = 0.5
    """Latin hypercube: the smallest share of a domain, over its share in D's mixture."""
    high: Annotated[float, Field(ge=1), only_if("design", "latin_hypercube")] = 2.0
    """Latin hypercube: the largest."""
    min_strength: Annotated[PositiveFloat, only_if("design", "dirichlet")] = 0.1
    """Dirichlet: the smallest of the strengths `s` in `α = s · K · prior`, spaced evenly in their logarithm."""
    max_strength: Annotated[PositiveFloat, only_if("design", "dirichlet")] = 5.0
    """Dirichlet: the largest."""
    max_ratio: Annotated[float, Field(gt=1), only_if("design", "dirichlet")] = 15.0
    """Dirichlet: no share is more than this times the prior's."""


class SequentialParameters(ParameterGroup):
    """How many branches a sequential design trains."""

    branches: Annotated[int, Field(ge=8)] = 8
    """Sequential: the most branches, those of the reference and of D's mixture among them."""
    batch: PositiveInt = 2
    """Sequential: branches that are chosen at a time, and may be trained side by side."""


class SampleParameters(ParameterGroup):
    """How much text a candidate's influence is sampled from."""

    tokens: PositiveInt | None = None
    """Response `influence`: tokens of a candidate's sample; `null` takes all that influence was measured on."""


class OwnTokensParameters(SampleParameters):
    """Which candidates are measured on tokens of their own."""

    exact: NonNegativeInt = 0
    """Response `influence`: candidates that are also measured on tokens of their own, to show that both agree."""


class CandidateRunParameters(ParameterGroup):
    """The branch that is trained under each candidate."""

    branch_tokens: PositiveInt | None = None
    """Response `lookahead`: training tokens of a branch, rounded up to whole steps; null: `train.chunk_tokens`. A
    shorter branch reads as small a share of every domain's text, so that it repeats as much as the chunk would."""
    anneal: bool = True
    """Response `lookahead`: let a branch's learning rate fall to zero, as any model's would before it is judged."""
    items: PositiveInt | None = 400
    """Response `lookahead`: items per task that a branch is scored on; `null` takes all of the query half."""
    workers: Annotated[PositiveInt | Literal["auto"], UNRECORDED] = "auto"
    """Response `lookahead`: branches at a time, each in one thread: `auto` is one per core, and one on a GPU."""

    def steps(self, train: ScheduleParameters) -> int:
        """Return the optimiser steps of a branch."""
        return train.steps_of(self.branch_tokens)


class SequentialRunParameters(SequentialParameters, CandidateRunParameters):
    """The branches of a sequential design, one batch after the other."""


class TablesParameters(ParameterGroup):
    """Which tables a sweep reads instead of measuring, or beside it."""

    table: TableParameters = TableParameters()


class EvidenceParameters(TablesParameters):
    """Which branches from elsewhere the surrogate `response` learns from besides its own."""

    earlier_rounds: bool = True
    """Surrogate `response`: learn from the branches of the rounds before, too. Those of `table`, losses of this run's
    tasks in nats per token, are learned from wherever they are given."""


class SweepParameters(
    JudgementParameters,
    SearchedParameters,
    DesignParameters,
    SequentialRunParameters,
    OwnTokensParameters,
    EvidenceParameters,
):
    """TiKMiX-M: a regression surrogate of measured responses, searched for the best mixture."""

    choose: Literal["predicted", "measured"] = "predicted"
    """`predicted` is the mixture that the surrogate finds; `measured` the candidate whose mean response over the
    targets was the best, with no surrogate's word in it."""

    @model_validator(mode="after")
    def _require_tables(self) -> "SweepParameters":
        table = self.table
        if self.response == "table" and not (table.ratios and table.metrics):
            raise ValueError("response=table needs table.ratios and table.metrics, the paths of two CSV files")
        if self.choose == "measured" and self.response != "lookahead":
            raise ValueError("choose=measured takes the best of mixtures that were trained on: set response=lookahead")
        if self.response != "table" and (table.test_ratios or table.test_metrics):
            raise ValueError("table.test_ratios and table.test_metrics judge a sweep of tables: set response=table")
        if (table.ratios is None) != (table.metrics is None):
            raise ValueError("table.ratios and table.metrics go together: give both or neither")
        if (table.test_ratios is None) != (table.test_metrics is None):
            raise ValueError("table.test_ratios and table.test_metrics go together: give both or neither")
        if self.design == "sequential" and self.response != "lookahead":
            raise ValueError("design=sequential chooses branches of training one by one: set response=lookahead")
        if self.surrogate == "response" and (self.response != "lookahead" or self.target != "each"):
            raise ValueError("surrogate=response is of branches, task by task: set response=lookahead and target=each")
        if self.design == "sequential" and self.choose == "measured":
            raise ValueError("design=sequential ends with the mixture that is predicted: set choose=predicted")
        if self.exact > self.candidates:
            raise ValueError(f"exact ({self.exact}) is more than candidates ({self.candidates}): lower the first")
        if self.min_strength > self.max_strength:
            raise ValueError(f"min_strength ({self.min_strength:g}) is above max_strength ({self.max_strength:g})")
        return self
