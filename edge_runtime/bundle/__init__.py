"""The bundle's room: what is in the folder that ships, and why it may be believed."""
