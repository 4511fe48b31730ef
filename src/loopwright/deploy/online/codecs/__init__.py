"""The forms in which rows arrive over HTTP and answers leave: one file for each protocol.

A codec is made for one signature and turns a body into an `Asked` and answers into a `Reply`. It knows nothing of
scoring, variants or the log.
"""
