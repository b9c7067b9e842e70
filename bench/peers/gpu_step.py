"""PyTorch's side of bench/gpu-step.ts: eager mode under autocast, on the device of the first line. Answers {"count": n} with seconds and losses.

Scaled_dot_product_attention, fused AdamW, gradients set to None, cuDNN's benchmark mode; TF32 where covey has it.
"""
import json
import sys
import time

import torch

settings = json.loads(sys.stdin.readline())
device = settings["device"]
torch.set_num_threads(settings["threads"])
if device.startswith("cuda"):
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

from engine_steps import Step  # noqa: E402  (after the number of threads is set)

step = Step(settings["step"], settings["precision"] == "bf16", device.split(":")[0])
print(json.dumps({"version": torch.__version__}), flush=True)
for line in sys.stdin:
    count = json.loads(line)["count"]
    losses, began = [], time.perf_counter()
    # Each step ends with its loss on the host: the device has nothing left to do.
    for _ in range(count):
        losses.append(step.step())
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    print(json.dumps({"seconds": time.perf_counter() - began, "losses": losses, "peakBytes": peak}), flush=True)
