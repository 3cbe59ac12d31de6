"""Part gradients collected into a store until the mixture that they imply is stable (`stopping`).

Axes: T tasks, K domains, M parts of a task, L parts of a domain.
"""

from collections.abc import Iterable, Iterator

from torch import nn

from tikmix_pipeline.influence.collect import collect_gradients
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.group import group_influence
from tikmix_pipeline.influence.samples import Parts
from tikmix_pipeline.influence.stopping import ImpliedMixture, PartTable, Stopping, measure_until_stable
from tikmix_pipeline.influence.store import GradientStore
from tikmix_pipeline.lm.cost import NO_COST
from tikmix_pipeline.lm.loss import device_of
from tikmix_pipeline.parameters.measurement import GrowthParameters


def collect_until_stable(
    model: nn.Module,
    targets: Parts,
    growths: Iterable[tuple[int, Parts]],
    curvature: Curvature,
    store: GradientStore,
    *,
    key: str,
    implied_mixture: ImpliedMixture,
    parameters: GrowthParameters,
) -> Stopping:
    """Measure growing parts of every domain; the store says when and why it stopped, and what finding that out took.

    Args:
        model: the checkpoint, on the device to work on.
        targets: parts of every task, all of them from the start.
        growths: tokens of each domain and its parts so far (`MeasuredText.growing_domain_parts`).
        curvature: C at the same checkpoint.
        store: where the parts go; those of an earlier run are taken from it.
        key: names the checkpoint and the code.
        implied_mixture: decides a mixture from an influence matrix over the store's tasks and domains.
        parameters: when to stop, and the memory of the products.

    Raises:
        TikmixError: as `collect_gradients` and `group_influence`.
    """
    measured: Parts = {}
    choosing = [curvature.cost]

    def tables() -> Iterator[tuple[int, PartTable]]:
        for tokens, parts in growths:
            measured.update(parts)
            collect_gradients(model, {"task": targets, "domain": parts}, store, key=key)
            found = group_influence(
                store, curvature, memory_megabytes=parameters.memory_megabytes, device=device_of(model)
            )
            choosing.append(found.cost)
            yield tokens, (found.products_TMKL, found.task_tokens_TM, found.domain_tokens_KL)

    stopping = measure_until_stable(tables(), implied_mixture, stable_within=parameters.stable_within)
    # measures nothing: it writes down which parts count, and why no more
    collect_gradients(
        model,
        {"task": targets, "domain": measured},
        store,
        key=key,
        notes=stopping.to_dict(),
        choosing=sum(choosing, NO_COST),
    )
    return stopping
