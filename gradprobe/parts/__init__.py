"""The parts of a spec, one file a part. `gradprobe.spec` puts them together and is what others import."""
