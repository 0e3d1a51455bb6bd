"""From one source, a file or bytes, to values with their unit and geometry; `read` is the entry point.

Scaling values for a network belongs to `preprocessing`, HTTP and media types to `requests`.
"""
