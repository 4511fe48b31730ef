"""The MLOps maturity level of a project, 0 to 4, computed from what the ledger and git show.

Microsoft's MLOps maturity model, as facts that can be observed. Nothing is granted by a questionnaire: what cannot be
seen is unknown, and unknown is not granted. Facts about people are seen by the traces they leave in git.

References
----------
Microsoft, Machine Learning operations maturity model, Azure Architecture Center.
"""

from loopwright.maturity.assessment import Assessment, assess
from loopwright.maturity.facts import DIMENSIONS, Fact

__all__ = ["DIMENSIONS", "Assessment", "Fact", "assess"]
