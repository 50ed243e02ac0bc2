"""Export of networks, logs and evaluations to the formats of other tools."""
