"""Jobs: training, tuning, processing, batch transform, and the pipeline of them."""
