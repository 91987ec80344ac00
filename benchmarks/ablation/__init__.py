"""A²GRPO against SFT, stock GRPO and itself without its parts: `python -m benchmarks.ablation`."""
