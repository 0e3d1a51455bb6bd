"""The entry points of processes: the commands of the image and the handler of a worker."""
