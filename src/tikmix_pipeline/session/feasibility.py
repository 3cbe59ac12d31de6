"""What the text at hand and the tokens read so far show to be infeasible, refused before anything rests on it.

Two things tell how much may still be read: the corpus, once it is written, and the checkpoint of a round. A run looks
at each as soon as it is there: before its first node, or when it is saved. Whatever trains or measures reads one of
the two, so it comes after. What only the influence matrix can tell (a Pareto constraint) is left to the decision.
"""

from dataclasses import replace

from tikmix_pipeline.baselines.ngram import check_order
from tikmix_pipeline.baselines.unimax import unimax
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.target_samples import require_choices, target_samples
from tikmix_pipeline.mixture.external_run import SampledDomain
from tikmix_pipeline.mixture.feasibility import Chunks, require_feasible
from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.mixture.simplex import prior_mixture
from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.compare.arms import arms_of, run_of
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.remix.external import remix_round
from tikmix_pipeline.pipelines.remix.nodes import external_budget, sampled_domains
from tikmix_pipeline.pipelines.remix.pipeline import external_view, round_before
from tikmix_pipeline.pipelines.train_chunk.nodes import count_tokens
from tikmix_pipeline.pipelines.train_chunk.pipeline import budget_view
from tikmix_pipeline.run import Run


def check_sizes(run: Run, stages: set[str]) -> None:
    """Refuse what `remix` cannot do with the sizes that the team gives, where they need no sample.

    Raises:
        TikmixError: as `check_text`.
    """
    domains, sizes = run.parameters.corpus.domains, run.parameters.remix.sizes
    if "remix" in stages and all(domain in sizes and sizes[domain].tokens for domain in domains):
        _check_external(run, {domain: SampledDomain(tokens=0, bytes_per_token=1.0) for domain in domains})


def check_text(run: Run, stages: set[str]) -> None:
    """Refuse what these stages cannot decide with the corpus, which is there, whatever is measured.

    Raises:
        TikmixError: the chunks to come are longer than all text with `optimize.max_epochs`, no mixtures of them satisfy
            all bounds, a target has too few items to be measured on or no options to be scored by, or a baseline cannot
            decide with this corpus.
    """
    if not stages - {"corpus"}:
        return
    corpus = _corpus(run)
    if "remix" in stages:
        _check_external(run, sampled_domains(corpus))
        _check_anchor(run, corpus)
        target_samples(corpus, run.parameters.influence, context=run.parameters.train.context)
    elif "compare" in stages:
        _check_arms(run, corpus)
    else:
        _check_loop(run, corpus)


def check_round(run: Run, number: int) -> None:
    """Refuse what cannot be decided after round `number`, whose checkpoint is there, whatever is measured at it.

    Raises:
        TikmixError: as `check_text`, for the chunks that are left.
    """
    checkpoint, mixture = (run.load(of_round(number, name)) for name in ("checkpoint", "mixture"))
    budget = count_tokens(budget_view(run, number), checkpoint, mixture, _corpus(run))
    require_feasible(run.parameters.optimize, budget, _chunks_of_loop(run, number + 1))


def _corpus(run: Run) -> TokenShards:
    return TokenShards.open(run.path("corpus"), verify=False)


def _check_external(run: Run, samples: dict[str, SampledDomain]) -> None:
    before = [run.load(name) for name in round_before(remix_round(run))]
    budget, _ = external_budget(external_view(run), samples, run.root, *before)
    own = run.parameters.remix.chunk_tokens is not None
    parameter = "remix.chunk_tokens" if own else "train.chunk_tokens"
    mended = () if run.parameters.remix.consumed is None else ("correct what was read (remix.consumed)",)
    chunk = Chunks(
        count=1,
        subject=f"The coming chunk ({parameter})",
        chunk_parameter=parameter,
        step_tokens=1 if own else run.parameters.train.tokens_per_step,
        remedies=("say how much text there really is (remix.sizes)", *mended),
    )
    require_feasible(run.parameters.optimize, budget, chunk)
    if budget.remaining_tokens is not None:
        parameter, rest = "remix.remaining_tokens", budget.model_copy(update={"chunk_tokens": budget.remaining_tokens})
        whole = replace(chunk, subject=f"The rest of the run ({parameter})", chunk_parameter=parameter, step_tokens=1)
        require_feasible(run.parameters.optimize, rest, whole)


def _check_loop(run: Run, corpus: TokenShards) -> None:
    """Look ahead from the start of a run: the first chunk is read under the prior, and the rest is decided."""
    tokens = {domain: corpus.tokens(domain) for domain in corpus.domains}
    prior, length = prior_mixture(run.parameters.tikmix.prior, tokens), run.parameters.train.tokens_per_chunk
    read = {domain: weight * length for domain, weight in prior.items()}
    budget = TokenBudget(round=0, available=tokens, consumed=read, chunk_tokens=length, current=prior)
    require_feasible(run.parameters.optimize, budget, _chunks_of_loop(run, 1, follow_first=True))
    _check_strategy(run, corpus, budget)


def _check_strategy(run: Run, corpus: TokenShards, budget: TokenBudget) -> None:
    """Refuse what the run's strategy could not decide with the corpus after the first chunk."""
    parameters = run.parameters
    strategy, own = parameters.tikmix.strategy, parameters.baselines
    require_choices(corpus, parameters.influence)
    if strategy not in BASELINES:
        _check_anchor(run, corpus)
        target_samples(corpus, parameters.influence, context=parameters.train.context)
    elif strategy == "ngram":
        check_order(own.ngram, corpus.vocabulary_size)
    elif strategy == "unimax":
        unimax(budget.supplies(), tokens=budget.chunk_tokens, parameters=own.unimax)


def _check_anchor(run: Run, corpus: TokenShards) -> None:
    if run.parameters.optimize.entropy_anchor == "ngram":
        check_order(run.parameters.baselines.ngram, corpus.vocabulary_size)


def _chunks_of_loop(run: Run, first: int, *, follow_first: bool = False) -> Chunks:
    """Return the chunks from round `first` on, those that are only planned among them.

    The one after the last round is decided by that, and trained by none where no more is planned.
    """
    planned = run.parameters.tikmix.planned_rounds
    last = max(run.rounds, (planned or 0) - 1)
    rounds = f"chunks of rounds {first} to {last}" if first < last else f"chunk of round {last}"
    why, fewer = "tikmix.rounds and the one that the last round decides", "tikmix.rounds"
    if last > run.rounds:
        why = fewer = "tikmix.planned_rounds"
    elif planned is not None:
        fewer = "tikmix.planned_rounds and tikmix.rounds"
    capped = run.parameters.corpus.max_megabytes is not None
    return Chunks(
        count=last - first + 1,
        subject=f"The {rounds} ({why})",
        chunk_parameter="train.chunk_tokens",
        step_tokens=run.parameters.train.tokens_per_step,
        remedies=(f"lower {fewer}", "give more text (corpus.max_megabytes)" if capped else "give more text"),
        follow_first=follow_first,
    )


def _check_arms(comparison: Run, corpus: TokenShards) -> None:
    own = _complaint(comparison, corpus)
    # of one seed: the others differ in nothing that counts here
    for arm in {arm.name: arm for arm in arms_of(comparison.parameters)}.values():
        message = _complaint(run_of(comparison, arm), corpus)
        if message is not None:
            # what the arm sets is not at fault where the comparison itself could not run
            raise TikmixError(message if message == own else f"compare.definitions.{arm.name}: {message}")


def _complaint(run: Run, corpus: TokenShards) -> str | None:
    try:
        _check_loop(run, corpus)
    except TikmixError as error:
        return str(error)
    return None
