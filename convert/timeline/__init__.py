"""The timeline of a run: records and their recording come in, a picture and a page go out."""
