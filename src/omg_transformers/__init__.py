"""One model for all segmentation, on Hugging Face Transformers."""
