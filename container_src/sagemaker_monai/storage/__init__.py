"""What lies on disk, whatever it means: which files of a folder count, atomic writes, tables, archives, digests.

Nothing here knows an image, a label or a request.
"""
