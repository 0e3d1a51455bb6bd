"""Values of label maps and probabilities, as the data, the loss, the artifact and the outputs have them."""

IGNORED = 255  # nothing was annotated here
MAX_STRUCTURES = 250
BACKGROUND_NAME = "background"  # as data sets are written
FULL = 255  # a probability of 1, of those that are bytes
