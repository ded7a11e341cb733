"""An adaptive network in a training loop of one's own: plain PyTorch, and `pliant.Objective` for the loss.

python examples/own_loop.py
"""

import torch

import pliant


def main(epochs: int = 15) -> dict[str, float]:
    """Train on real handwritten digits; return the accuracy of every sub-network on held-out ones, in percent."""
    digits = pliant.load_data("digits", image_size=16)
    model = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=10), pliant.Depth())
    objective = pliant.Objective(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(digits.train) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps, cycle_momentum=False)
    for epoch in range(epochs):
        for x, y in digits.train.batches(64, shuffle=True, epoch=epoch, drop_last=True):
            loss = objective(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    model.eval()
    [(x, y)] = digits.val.batches(len(digits.val))
    with torch.no_grad():
        return {str(s): 100 * (model(x, subnet=s).argmax(1) == y).float().mean().item() for s in model.subnets}


if __name__ == "__main__":
    for subnet, accuracy in main().items():
        print(f"{subnet}: {accuracy:.1f} %")
