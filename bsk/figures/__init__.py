"""Pictures and the HTML page, drawn from records alone."""
