"""The console: the models of a project live, as pages for people and as JSON for programs.

It reads the ledger and the prediction log and changes nothing. Pages of MLflow and Prefect are linked, not copied.
Started as a part: ``python -m loopwright.console.app --port P``.
"""
