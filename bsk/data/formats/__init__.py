"""One reader per data format: a function from a Request to the Contents of the source."""
