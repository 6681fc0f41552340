"""Pre-trained encoders: texts and images to vectors, once, and kept."""
