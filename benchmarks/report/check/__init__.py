"""Whether a run is valid: rules, each a function, and what they find. See `rules.py`."""
