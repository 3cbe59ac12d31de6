"""Multiple choice of random tokens, and its loss from the plain log-likelihood of one option after the other."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.tasks import TokenisedItem


def choice_items(count: int, *, vocabulary: int = 320, longest: int = 8, seed: int = 0) -> list[TokenisedItem]:
    """Questions of 1 to `longest` tokens, with two to four options of 1 to 4; their bytes are drawn as well."""
    generator = np.random.default_rng(seed)

    def tokens(most: int) -> list[int]:
        return generator.integers(1, vocabulary, generator.integers(1, most + 1)).tolist()

    items = []
    for _ in range(count):
        option_ids = [tokens(4) for _ in range(generator.integers(2, 5))]
        items.append(item_of(tokens(longest), option_ids, int(generator.integers(len(option_ids))), generator))
    return items


def item_of(
    question_ids: list[int], option_ids: list[list[int]], gold: int, generator: np.random.Generator
) -> TokenisedItem:
    sizes = generator.integers(1, 20, len(option_ids)).tolist()
    whole = sizes[gold] + len(question_ids)
    return TokenisedItem(question_ids, option_ids[gold], sizes[gold], whole, option_ids, sizes, gold)


def item_losses(model: nn.Module, items: Sequence[TokenisedItem], context: int) -> list[Tensor]:
    """Return -log softmax_i(ℓ_i / bytes_i)[gold] of every item, each option read by itself and without padding."""
    losses = []
    for item in items:
        scores = []
        for option_ids, size in zip(item.option_ids, item.option_bytes, strict=True):
            kept = option_ids[:context]
            ids = [*item.question_ids, *kept][-(context + 1) :]
            logits_PV = model(input_ids=torch.tensor([ids[:-1]])).logits[0]
            log_p_PV = logits_PV.to(torch.promote_types(logits_PV.dtype, torch.float32)).log_softmax(-1)
            first = len(ids) - len(kept)
            likelihood = torch.stack([log_p_PV[at - 1, ids[at]] for at in range(first, len(ids))]).sum()
            scores.append(likelihood / (size * len(kept) / len(option_ids)))
        assert item.gold is not None
        losses.append(-torch.stack(scores).log_softmax(0)[item.gold])
    return losses
