"""The server behind `serve`: the gateway, the worker processes or multi-model-server, and the handler of requests.

`entrypoints` reads the environment for it.
"""
