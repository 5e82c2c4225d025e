"""What runs in a backend's own process: a job, from its first line to its answer."""
