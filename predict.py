"""Predict with trained checkpoints: python predict.py ckpt=runs/NAME split=test."""

from isic.cli import command

if __name__ == "__main__":
    command("predict", "isic.engine.apply:predict")
