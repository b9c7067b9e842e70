"""One Gloo rank of the collectives benchmark. Arguments: rank, world, rendezvous file. Reads lines
`<gather|reduce> <bytes> <iterations>` and answers each with a JSON array of milliseconds per iteration."""
import json
import sys
import time

import torch
import torch.distributed as dist

rank, world, rendezvous = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)


def measure(kind, size, iterations):
    mine = torch.full((size // 4,), rank + 1.0)
    gathered = [torch.zeros(size // 4) for _ in range(world)]

    def run():
        if kind == "gather":
            dist.all_gather(gathered, mine)
        else:
            dist.all_reduce(mine)
            mine.mul_(1.0 / world)  # keeps the values finite; a copy would cost as much

    for _ in range(2):
        run()
    milliseconds = []
    for _ in range(iterations):
        start = time.perf_counter()
        run()
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return milliseconds


print("ready", flush=True)
for line in sys.stdin:
    kind, size, iterations = line.split()
    print(json.dumps(measure(kind, int(size), int(iterations))), flush=True)
