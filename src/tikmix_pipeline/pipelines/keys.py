"""What kept work is told apart by: the code that made it."""

from tikmix_pipeline.parameters.measurement import ReadingParameters
from tikmix_pipeline.parameters.training import LoadParameters
from tikmix_pipeline.store.code import code_of


def branch_key() -> str:
    """Return what names all code that a branch and its scores depend on, and the libraries that it runs on."""
    from tikmix_pipeline.lm.branch_pool import train_and_score

    return code_of(train_and_score).key


def gradient_key(model: LoadParameters, influence: ReadingParameters) -> str:
    """Return what a chunk's gradient depends on besides weights and text: code, libraries, kernel and precision."""
    from tikmix_pipeline.influence.gradients import mean_gradient
    from tikmix_pipeline.lm.model import load_model

    return " ".join([code_of(mean_gradient).key, code_of(load_model).key, model.attention, influence.precision])
