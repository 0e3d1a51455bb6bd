"""What differs by task: target, loss, metrics, postprocessing, encoding."""
