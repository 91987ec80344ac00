"""The tiny Qwen3-VL and its pre-training."""
