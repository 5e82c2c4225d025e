"""What `python -m benchmarks` offers beside `list`, `report` and the like: one file per group of commands."""
