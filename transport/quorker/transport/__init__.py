"""The real world around the core: trio, TCP, files, clocks. Each file has a twin of the same name in `quorker.sim`."""
