"""Behind `serve`: the gateway, the workers or multi-model-server behind it, and the handler of requests.

It knows HTTP and the artifact; what the environment says comes from `entrypoints`.
"""
