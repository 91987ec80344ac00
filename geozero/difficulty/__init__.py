"""How hard each sample is for a model: sample K answers, keep them, select the easy and the hard."""
