"""A Grafana dashboard and Prometheus' alert rules, ready to load, made from a project's own deployments and limits.

They read what the online workers and the console export at ``/metrics``.
"""

from loopwright.monitor.exports.grafana import dashboard
from loopwright.monitor.exports.prometheus import rules

__all__ = ["dashboard", "rules"]
