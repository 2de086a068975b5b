"""The neural networks: DiT, adapters, video autoencoder, text encoder."""
