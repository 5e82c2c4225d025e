"""The gate: what a backend must compute before it is trained or timed, and the reference that says so."""
