"""One reader for each form of data, a function from what is asked for to the splits that the source has."""
