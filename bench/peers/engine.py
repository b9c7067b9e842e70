"""PyTorch's side of `npm run bench -- engine`: answers the requests of bench/engine/protocol.ts, one JSON line each.

What a knowledgeable user of that version would write: eager mode; scaled_dot_product_attention where torch has it and it is not far
slower at that shape and precision, else q k' softmax v from matmuls (layers.py measures once); channels first; AdamW fused on torch
>= 2.4, else one loop over the parameters (in 1.13 `foreach` is no faster for a ViT-B/32 and takes 14 % more memory); gradients set to None between steps; bf16 is torch.autocast over fp32 weights, gradients and moments.
"""
import json
import sys
import time

import torch

settings = json.loads(sys.stdin.readline())
torch.set_num_threads(settings["threads"])
BF16 = settings["precision"] == "bf16"

from engine_ops import Ops  # noqa: E402  (after the number of threads is set)
from engine_steps import Step  # noqa: E402
from values import hash_values  # noqa: E402


def status_mib(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1024


def gemm(request):
    size = request["size"]
    dtype = torch.bfloat16 if BF16 else torch.float32
    a, b = (torch.from_numpy(hash_values(seed, size * size, 1)).view(size, size).to(dtype) for seed in (1, 2))
    fastest = float("inf")
    for _ in range(request["count"]):
        began = time.perf_counter()
        torch.mm(a, b)
        fastest = min(fastest, time.perf_counter() - began)
    return {"gflops": 2 * size**3 / fastest / 1e9}


base_mib = status_mib("VmRSS")
answers = {
    "op": lambda request: ops.run(request),
    "check": lambda request: ops.check(request),
    "steps": lambda request: step.run(request),
    "gemm": gemm,
    "memory": lambda request: {"baseMiB": base_mib, "peakMiB": status_mib("VmHWM")},
}
# Ops holds autocast on for good, which a step must not find.
if settings["step"] is None:
    ops = Ops(BF16)
else:
    step = Step(settings["step"], BF16)
print(json.dumps({"version": torch.__version__}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(answers[request["do"]](request)), flush=True)
