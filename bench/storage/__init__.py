"""Where a store lies: a folder, or a prefix of an object store."""
