"""The web page and the HTTP API of ``peewit serve``. Needs the extra ``serve``."""
