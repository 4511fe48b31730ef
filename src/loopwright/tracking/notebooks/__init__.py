"""Notebooks: a verdict on one, from one to a pipeline, a tracked run of one, and magics inside of one."""
