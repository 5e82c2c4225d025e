"""A training: what it starts from, its phases, their epochs and steps, what is kept on disk meanwhile."""
