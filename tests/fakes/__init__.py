"""Examples made up for tests: tiny, so that every check of every one takes milliseconds."""
