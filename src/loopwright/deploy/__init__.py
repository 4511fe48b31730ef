"""Deployment: how rows arrive and how predictions leave.

`base` holds what the four modes share: which version answers a row, scoring, and logging before the answer. The modes
`online`, `batch`, `stream` and `edge` differ only in where rows come from and do not know each other.
"""
