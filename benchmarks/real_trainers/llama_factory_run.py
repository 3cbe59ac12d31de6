"""LLaMA-Factory's own trainer on an exported mixture; runs in the environment of requirements-llama-factory.txt.

    python llama_factory_run.py training.yaml settings.json

The training file is one that `llamafactory-cli train` takes. Tokens are counted where the Trainer of transformers hands
them to the model. Writes `result.json`: tokens by domain, and how long sequences were. `torchaudio`, whose wheel
wants a GPU's libraries and which text does not use, is an empty module.
"""

import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

sys.modules["torchaudio"] = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("torchaudio", None))

import tokenizers  # noqa: E402
import transformers  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402


def main() -> None:
    """Train, count, and write what was found."""
    settings = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    first_ids = np.array(settings["first_ids"])
    counts_K, lengths = np.zeros(len(first_ids), dtype=np.int64), set()
    training_step = transformers.Trainer.training_step

    def counting(self, model, inputs, *arguments, **options):
        ids_BS = inputs["input_ids"].cpu().numpy()
        lengths.add(ids_BS.shape[1])
        for ids_S in ids_BS:
            counts_K[:] += np.bincount(domains_of(ids_S, first_ids), minlength=len(first_ids))
        return training_step(self, model, inputs, *arguments, **options)

    transformers.Trainer.training_step = counting
    training = OmegaConf.to_container(OmegaConf.load(sys.argv[1]))
    if not Path(training["model_name_or_path"]).exists():
        make_model(training["model_name_or_path"], training["cutoff_len"])
    run_exp(training)
    result = {"counted": counts_K.tolist(), "lengths": sorted(lengths)}
    (Path(settings["folder"]) / "result.json").write_text(json.dumps(result), encoding="utf-8")


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


if __name__ == "__main__":
    main()
