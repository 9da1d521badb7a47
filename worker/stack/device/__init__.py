"""A stack on any device, in torch's batched operations: for GPUs, where the stack of the CPU's kernels can't run."""
