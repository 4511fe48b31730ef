"""Models for devices: one signed file with an ONNX graph, its lineage, golden rows and a predictor of a few lines."""

from loopwright.deploy.edge.bundling import bundle
from loopwright.deploy.edge.importing import Imported, import_answers
from loopwright.deploy.edge.verification import Verified, verify

__all__ = ["Imported", "Verified", "bundle", "import_answers", "verify"]
