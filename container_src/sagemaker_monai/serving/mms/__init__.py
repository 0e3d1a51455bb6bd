"""multi-model-server as the back end of many models: its process, its models, its messages."""
