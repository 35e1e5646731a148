"""Equipment to break on purpose: a real broker, a made accelerator, disks that lose their power.

For the campaign and for the tests alike; nothing here knows the detector's own process.
"""
