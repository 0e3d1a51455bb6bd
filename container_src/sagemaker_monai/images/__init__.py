"""From one source, a file or bytes, to values with their unit and geometry. `read` is the way in.

What a network wants of the values is for `preprocessing`; HTTP and its media types are for `requests`.
"""
