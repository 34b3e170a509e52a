"""A page and an API on top of a Run: ``peewit serve``. Needs the extra ``serve``."""
