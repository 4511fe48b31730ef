"""Labels that come by themselves: from a table or a topic, each on a schedule of its own."""

from loopwright.deploy.labels.sources import LabelSources, SourceState, states, sync, tick

__all__ = ["LabelSources", "SourceState", "states", "sync", "tick"]
