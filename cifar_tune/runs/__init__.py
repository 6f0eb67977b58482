"""What a run has finished, who may write it, and where it is kept."""
