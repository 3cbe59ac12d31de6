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

import transformers  # noqa: E402
from counted_text import domains_of, make_model  # noqa: E402
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


if __name__ == "__main__":
    main()
