"""What the monitors found, as pages and as JSON: one module for each thing that is asked.

A question is a frozen record such as ``DriftOf("demand-api", search="temp")``; its `answer` reads what it needs from the
ledger by indexes and limits, and is the same for a page and for the JSON interface.
"""
