"""For work on this project: pins, generated tables, drawn samples, demos, benchmarks and scans."""
