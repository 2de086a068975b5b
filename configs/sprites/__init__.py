"""The small model: its family, data and three stages. Only its autoencoder is trained yet."""
