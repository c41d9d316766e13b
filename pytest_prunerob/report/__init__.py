"""results.json, its schema, and what is rendered from it alone; imports neither torch nor pytest."""
