"""PyTorch's side of bench/loss, after open_clip's loss.py: the loss of one rank's rows against the gathered features, forward and backward by
autograd. The gathered features take gradients (gather_with_grad), without which the local loss has wrong ones. Speaks bench/loss/protocol.ts.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

from values import hash_values

settings = json.loads(sys.stdin.readline())
torch.set_num_threads(settings["threads"])


def status_bytes(key):
    with open("/proc/self/status") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def unit_rows(seed, rows, width):
    x = torch.from_numpy(hash_values(seed, rows * width, 1)).view(rows, width)
    return F.normalize(x, dim=-1)


class Loss:
    def __init__(self, samples, rows, width):
        all_image, all_text = unit_rows(1, samples, width), unit_rows(2, samples, width)
        leaves = [all_image[:rows].clone(), all_text[:rows].clone(), all_image, all_text, torch.tensor(100.0), torch.tensor(-10.0)]
        self.leaves = leaves
        for leaf in leaves:
            leaf.requires_grad_()
        self.labels = torch.arange(rows)

    def clip(self):
        image, text, all_image, all_text, scale, _ = self.leaves
        logits_per_image = scale * image @ all_text.T
        logits_per_text = scale * text @ all_image.T
        return (F.cross_entropy(logits_per_image, self.labels) + F.cross_entropy(logits_per_text, self.labels)) / 2

    def siglip(self):
        image, _, _, all_text, scale, bias = self.leaves
        logits = scale * image @ all_text.T + bias
        labels = -torch.ones(logits.shape)
        labels[self.labels, self.labels] = 1
        return -F.logsigmoid(labels * logits).sum() / image.shape[0]

    def run(self):
        for leaf in self.leaves:
            leaf.grad = None
        loss = getattr(self, settings["loss"])()
        loss.backward()
        return loss.item()


def memory():
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    before = status_bytes("VmRSS")
    loss = ours.run()
    # The gradients are outputs, those of the gathered features too: they go back to their ranks.
    outputs = sum(4 * leaf.grad.numel() for leaf in ours.leaves if leaf.grad is not None)
    return {"beyondBytes": status_bytes("VmHWM") - before - outputs, "lossSum": loss * settings["rows"]}


def run(count):
    seconds, cpu_seconds = [], []
    for _ in range(count):
        began, cpu = time.perf_counter(), time.process_time()
        ours.run()
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu)
    return {"seconds": seconds, "cpuSeconds": cpu_seconds}


# Code and libraries are loaded before anything is measured.
Loss(512, 160, settings["width"]).run()
ours = Loss(settings["samples"], settings["rows"], settings["width"])
print(json.dumps({"version": torch.__version__}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(memory() if request["do"] == "memory" else run(request["count"])), flush=True)
