"""isic."""
