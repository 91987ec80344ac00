"""Ask a model many questions, resumably."""
