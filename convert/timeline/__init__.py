"""What a device made of a recording.

Its records and the recording come in, a picture and a page go out.
"""
