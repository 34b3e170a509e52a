"""The machine underneath: files, processor, memory allocator, terminal, text."""
