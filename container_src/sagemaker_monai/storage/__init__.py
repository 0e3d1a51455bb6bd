"""Files on disk, whatever they mean: which files of a folder count, atomic writes, tables, archives, digests.

Nothing here knows about images, labels or requests.
"""
