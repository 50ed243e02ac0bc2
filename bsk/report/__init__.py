"""From records to tables, intervals and pictures."""
