"""Downloads from several mirrors, resumed and verified."""
