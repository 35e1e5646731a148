"""Raw readings on the disk: a folder of compressed CSV parts, appended to, capped, read back."""
