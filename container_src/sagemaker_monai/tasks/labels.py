"""What labels look like in a data set."""

# Of one image: a class name, a number, findings, or classes (findings) with their shares of annotators.
Label = str | float | tuple[str, ...] | dict[str, float]
