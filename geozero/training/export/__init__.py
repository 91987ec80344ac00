"""Hand a trained model on."""
