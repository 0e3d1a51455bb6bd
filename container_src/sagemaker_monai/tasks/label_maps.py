"""Values of label maps, as the data, the loss and the artifact have them."""

IGNORED = 255  # nothing was annotated here
MAX_STRUCTURES = 250
BACKGROUND_NAME = "background"  # as data sets are written
