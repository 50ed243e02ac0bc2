"""Train a robust network on the digits and attack it."""

import bsk

data = bsk.prepare("digits")
run = bsk.train(data, "bs", epochs=10, schedule="cyclic", progress=False)
print(run)
for attack in ("natural", "pgd-20"):
    print(bsk.evaluate(run.model, data=data, attack=attack, progress=False))
