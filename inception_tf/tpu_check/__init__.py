"""Whether a training step fits into a TPU chip and what bounds it, by the compiler for TPUs, without one."""
