"""A local stack: Prefect server, MLflow server and two workers, as detached processes under `.geozero/stack/`."""
