"""Which examples survive which attack."""
