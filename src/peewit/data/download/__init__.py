"""Download the published archives from one of several mirrors, with resuming and a checksum."""
