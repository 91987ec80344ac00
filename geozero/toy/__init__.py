"""A small overhead world that can be rendered, and a tiny Qwen3-VL that learns on it."""
