"""Prefect flows: each reads top-down as the recipe, its tasks call functions of `geozero` and nothing else."""
