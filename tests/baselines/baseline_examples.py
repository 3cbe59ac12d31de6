"""A small run for the tests of this room."""

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.corpus.shards import TokenShards
from tikmix_pipeline.parameters import ModelParameters, TrainParameters

MODEL = ModelParameters(preset="llama-tiny")
PRIOR = {"code": 0.5, "prose": 0.3, "verse": 0.2}
TRAIN = TrainParameters(batch_size=4, context=16, device="cpu", save_every_steps=2)


def heldout_texts(shards: TokenShards, *domains: str) -> dict[str, list[TokenBatch]]:
    """Held-out text of domains, as targets."""
    windows = {domain: shards.windows(domain, TRAIN.context, "heldout") for domain in domains}
    return {
        f"query/{domain}": [TokenBatch.of_windows(one.take(range(0, len(one), 4)))] for domain, one in windows.items()
    }
