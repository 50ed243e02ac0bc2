"""What bsk has made, in the forms of other tools: networks, logs, evaluations."""
