"""Reports of the user's own: pivot tables and templates."""
