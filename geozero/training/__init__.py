"""Training: SFT and A²GRPO through ms-swift, with the one override that A²GRPO needs."""
