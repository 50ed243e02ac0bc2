"""The commands: the only wing that prints or knows typer and rich."""
