"""What a model is (`base.Model`), and the models, a file for each latent structure."""
