"""Load and speed: what the product does under users, and what it costs beside the bare engine."""
