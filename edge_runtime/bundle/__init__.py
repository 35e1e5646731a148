"""The bundle: the contents of the folder that ships, and the checks before it is trusted."""
