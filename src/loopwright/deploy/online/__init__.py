"""Online deployments: predictions over HTTP, from a raw ASGI application on uvicorn.

`worker` is the serving process, `client` what talks to it. One process serves all online deployments of a project and
follows changes of what they serve without a restart.
"""
