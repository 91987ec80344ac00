"""A²GRPO: objective, rewards, trainer, and what watches over a run."""
