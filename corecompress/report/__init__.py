"""Tables, JSON and the model card."""
