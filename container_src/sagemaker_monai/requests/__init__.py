"""Reads the body of an HTTP request into samples, and checks its limits before memory or time is spent."""
