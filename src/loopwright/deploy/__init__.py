"""Deployment: one model, four modes. `base` is what they share; how rows arrive and leave is all that differs."""
