"""Points to rows."""
