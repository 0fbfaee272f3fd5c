"""What every training shares, in the core and in plugins: checkpoints, the loss plot, quiet libraries."""
