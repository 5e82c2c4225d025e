"""Two runs of the same cells, a baseline and a candidate: what got worse, and what else changed."""
