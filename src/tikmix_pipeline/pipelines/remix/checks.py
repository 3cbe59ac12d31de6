"""What `remix` refuses before anything is read or measured."""

from pathlib import Path

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.external_run import check_external_run
from tikmix_pipeline.mixture.simplex import check_mixture
from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.pipelines.remix.given import given_mixture
from tikmix_pipeline.pipelines.remix.rounds import remix_round, require_earlier_rounds
from tikmix_pipeline.pipelines.remix.sample import tokenizer_folder
from tikmix_pipeline.run import Run


def check_remix(run: Run) -> None:
    """Refuse what can be known to be wrong from the parameters and the checkpoint's folder.

    Raises:
        TikmixError: naming the parameter or file at fault.
    """
    parameters = run.parameters
    if parameters.tikmix.strategy not in ("direct", "surrogate"):
        raise TikmixError(
            f"tikmix.strategy is '{parameters.tikmix.strategy}', which looks at no checkpoint. For `remix` it is "
            "'direct' or 'surrogate'."
        )
    _check_checkpoint(parameters, run.root)
    require_earlier_rounds(run, remix_round(run))
    given = given_mixture(parameters.remix, run.root, parameters.experiment)
    if given is not None:
        check_mixture(given, list(parameters.corpus.domains), "remix.current")
    check_external_run(parameters.remix, parameters.corpus.domains)
    if parameters.influence.damping_unit == "horizon":
        raise TikmixError(
            "influence.damping_unit is 'horizon': the sum of the coming chunk's learning rates, which `remix` does not "
            "know of a run elsewhere. Set it to 'relative' or 'absolute'."
        )


def _check_checkpoint(parameters: RunParameters, root: Path) -> None:
    if parameters.model.checkpoint is None:
        raise TikmixError(
            "remix needs model.checkpoint: a folder that save_pretrained wrote the model and its tokenizer to."
        )
    from tikmix_pipeline.corpus.tokenizer import tokenizer_files

    folder = root / parameters.model.checkpoint
    if not (folder / "config.json").is_file():
        raise TikmixError(f"model.checkpoint: {folder} holds no config.json. Give a folder that save_pretrained wrote.")
    if not any(folder.glob("*.safetensors")):
        raise TikmixError(
            f"model.checkpoint: {folder} holds no *.safetensors. Other files of weights may run code and are not "
            "read: load the model once and save it by save_pretrained."
        )
    if parameters.corpus.tokenizer.path is None and not tokenizer_files(folder):
        raise TikmixError(
            f"model.checkpoint: {folder} holds no tokenizer. Save the model's own there "
            "(AutoTokenizer.save_pretrained), or give its folder: corpus.tokenizer.path."
        )
    _check_fit(parameters, root, folder)


def _check_fit(parameters: RunParameters, root: Path, checkpoint: Path) -> None:
    """Compare what the files themselves tell, without loading the model."""
    from tikmix_pipeline.corpus.tokenizer import tokenizer_digest, vocabulary_size_of
    from tikmix_pipeline.lm.checkpoint import Checkpoint

    tokenizer = root / tokenizer_folder(parameters)
    Checkpoint(checkpoint).require_context(parameters.train.context)
    own, given = tokenizer_digest(checkpoint), tokenizer_digest(tokenizer)
    if own is not None and given is not None and own != given:
        raise TikmixError(
            f"corpus.tokenizer.path: the tokenizer in {tokenizer} is another than the one in {checkpoint}. Leave the "
            "parameter out: the checkpoint's own is taken."
        )
    known = vocabulary_size_of(tokenizer)
    if known is not None:
        Checkpoint(checkpoint).require_known_ids(known)
