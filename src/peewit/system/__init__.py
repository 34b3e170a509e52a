"""The operating system: files, CPU, memory allocator, terminal, process start, and text."""
