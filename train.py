"""Train one model on one archive: python train.py model=effnetv2 data=isic2024 fold=0."""

from isic.cli import command

if __name__ == "__main__":
    command("train", "isic.engine.start:fit")
