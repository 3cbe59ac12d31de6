import numpy as np
import pytest
import skops.io
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import FunctionTransformer

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.sweep.persist import SURROGATE_FILE, load_surrogate, save_surrogate
from tikmix_pipeline.mixture.sweep.surrogates import build_surrogate
from tikmix_pipeline.parameters.sweep import SURROGATE_KINDS


@pytest.mark.parametrize("kind", SURROGATE_KINDS)
def test_a_surrogate_predicts_the_same_bits_after_a_round_trip(kind, tmp_path):
    weights_NK = np.random.default_rng(0).dirichlet(np.ones(3), size=24)
    response_NT = np.stack([weights_NK[:, 0] ** 2, np.ones(24)], axis=1)
    surrogate = build_surrogate(kind, folds=2, seed=0).fit(weights_NK, response_NT)
    save_surrogate(surrogate, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [SURROGATE_FILE]
    assert np.array_equal(load_surrogate(tmp_path).predict(weights_NK), surrogate.predict(weights_NK))


def test_a_file_with_any_other_code_is_refused(tmp_path):
    skops.io.dump(FunctionTransformer(func=print), tmp_path / SURROGATE_FILE)
    with pytest.raises(TikmixError, match=r"surrogate\.skops holds .*print.*Delete it"):
        load_surrogate(tmp_path)


def test_a_damaged_or_missing_file_is_said_to_be_that(tmp_path):
    with pytest.raises(TikmixError, match=r"not there.*sweep"):
        load_surrogate(tmp_path)
    skops.io.dump(KNeighborsRegressor(), tmp_path / SURROGATE_FILE)
    (tmp_path / SURROGATE_FILE).write_bytes((tmp_path / SURROGATE_FILE).read_bytes()[:200])
    with pytest.raises(TikmixError, match="damaged"):
        load_surrogate(tmp_path)
