"""The only code that knows file formats: `read` makes a `Graph`, `write` lowers one by its plan."""
