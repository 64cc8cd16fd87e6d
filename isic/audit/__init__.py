"""What is odd or wrong with an archive, said before anything is trained on it (`isic check`)."""
