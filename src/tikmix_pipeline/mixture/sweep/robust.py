"""Noise with heavy tails, by weights: some runs miss by far more than others, and would bend a fit to them.

Axes: N rows.
"""

import numpy as np

from tikmix_pipeline.mixture.simplex import FloatArray

_DEGREES_OF_FREEDOM = 3.0
"""ν: near 1 the tails are all but endless, above 30 the noise is all but normal."""
_QUARTILE = 0.6745
"""Half the absolute values of a standard normal lie below this."""


def excess_noise(residuals_N: FloatArray) -> FloatArray:
    """Return how much noisier than the others each row is, a variance whose geometric mean is 1.

    `u_n ∝ (ν + t_n²) / (ν + 1)`, where t_n is the residual over the robust deviation of all of them: repeated least
    squares with the weights `1 / u` fits a Student t noise of ν degrees of freedom (Lange, Little and Taylor 1989).

    Args:
        residuals_N: of predictions from other rows; a model's residuals on the rows that it was fitted to are too small
            where it followed an outlier.
    """
    deviation = max(float(np.median(np.abs(residuals_N))) / _QUARTILE, np.finfo(np.float64).tiny)
    log_noise_N = np.log(_DEGREES_OF_FREEDOM + (residuals_N / deviation) ** 2)
    noise_N: FloatArray = np.exp(log_noise_N - log_noise_N.mean())
    return noise_N
