"""Predictions in batch: the rows of files and tables, each scored once however often a job runs or dies."""

from loopwright.deploy.batch.job import BatchRun, run

__all__ = ["BatchRun", "run"]
