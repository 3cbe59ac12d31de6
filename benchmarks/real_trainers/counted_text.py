"""Text whose tokens tell their domain, for trainers of transformers' models: tokenizer, tiny model, count."""

import numpy as np
import tokenizers
import transformers


def make_model(folder: str, context: int) -> None:
    """Save a model of a layer, and a tokenizer that reads `t7` as token 7."""
    words = {"<unk>": 0, "</s>": 1} | {f"t{number}": number for number in range(2, 32)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))  # noqa: S106
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=len(words), max_position_embeddings=context, **size)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def domains_of(ids_S: np.ndarray, first_ids: np.ndarray) -> np.ndarray:
    """Return the domain of every token; the end of a document (token 1) is of the document before it."""
    places = np.arange(len(ids_S))
    before = np.maximum.accumulate(np.where(ids_S > 1, places, -1))
    after = np.flatnonzero(ids_S > 1)[0]  # a sequence may begin with an end
    return np.searchsorted(first_ids, ids_S[np.where(before < 0, after, before)], side="right") - 1
