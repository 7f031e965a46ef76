"""The patch store: schema, checks, reading and writing."""
