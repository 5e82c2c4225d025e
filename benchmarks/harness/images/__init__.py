"""Images on their way to a batch: data sets found, fetched, drawn; decoded once, augmented, put in order."""
