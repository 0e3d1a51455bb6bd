"""Hosting: endpoints with their scaling and checks, and the model registry."""
