"""A model that is served: endpoints with their scaling and checks, and the model registry."""
