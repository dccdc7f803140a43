"""Storage on disk between runs: training steps, policies, their records, and the folder lock."""
