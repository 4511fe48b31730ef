"""Simulated worlds that the checks of the monitors are run on, through the interface they have in production."""
