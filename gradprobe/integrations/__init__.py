"""`gradprobe.watch` as a callback of the trainers that people use: `lightning`, `transformers`."""
