"""From a plan to its records: processes or jobs of a cluster, what they share, what is shown meanwhile."""
