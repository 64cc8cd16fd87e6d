"""Plain networks: batch -> logits. They know nothing of losses, folds or Lightning."""
