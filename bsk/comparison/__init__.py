"""From records to rows: statistics, significance, and the published numbers beside."""
