"""What runs and ends: training, tuning, processing, batch transform, and the pipeline of them."""
