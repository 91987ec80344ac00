"""What scores are made of: records, per-record statistics, caption metrics, baselines. No task is known here."""
