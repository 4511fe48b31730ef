"""Statistics that say how far two samples differ, and whether chance alone makes such a difference.

Of counts in common bins, which is all that windows need, and where it says so exact ones of the samples themselves.
"""

from loopwright.monitor.statistics.chi_square import chi_square, pooled
from loopwright.monitor.statistics.fdr import benjamini_hochberg, benjamini_yekutieli
from loopwright.monitor.statistics.jensen_shannon import jensen_shannon
from loopwright.monitor.statistics.kolmogorov_smirnov import (
    kolmogorov_smirnov,
    kolmogorov_smirnov_binned,
    kolmogorov_smirnov_p,
)
from loopwright.monitor.statistics.nulls import (
    jensen_shannon_null_quantile,
    psi_null_quantile,
    simulated_null_quantile,
)
from loopwright.monitor.statistics.psi import psi
from loopwright.monitor.statistics.wasserstein import wasserstein, wasserstein_binned

__all__ = [
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "chi_square",
    "jensen_shannon",
    "jensen_shannon_null_quantile",
    "kolmogorov_smirnov",
    "kolmogorov_smirnov_binned",
    "kolmogorov_smirnov_p",
    "pooled",
    "psi",
    "psi_null_quantile",
    "simulated_null_quantile",
    "wasserstein",
    "wasserstein_binned",
]
