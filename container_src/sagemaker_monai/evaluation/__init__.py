"""What a predictor is worth on labelled images: scores with intervals, model card, report."""
