"""Writes what formats.test.ts compares with, by PyTorch (1.13 and newer) itself.

usage: formats_fixtures.py FOLDER
position-resize.json  positions resized as open_clip's resize_pos_embed does
state-dict.pt         torch.save of an OrderedDict: float32, float16, bfloat16, a transposed view, an integer buffer
training.pt           the same inside a training checkpoint, under a data-parallel wrapper's keys
payload.pt            an archive whose pickle calls os.system
payload.bin           the same as a bare pickle
program.pt            a TorchScript archive
"""
import collections
import json
import os
import pickle
import sys

import torch
import torch.nn.functional as F

folder = sys.argv[1]
torch.manual_seed(1)


def resize_pos_embed(positions, grid):
    token, rest = positions[:1], positions[1:]
    old = int(len(rest) ** 0.5)
    picture = rest.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    picture = F.interpolate(picture, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([token, picture.permute(0, 2, 3, 1).reshape(grid * grid, -1)])


cases = []
for old, new in [(4, 7), (7, 4), (3, 8), (8, 3), (5, 6)]:
    positions = torch.randn(old * old + 1, 3)
    resized = resize_pos_embed(positions, new)
    cases.append({"grid": new, "positions": positions.flatten().tolist(), "resized": resized.flatten().tolist()})
with open(f"{folder}/position-resize.json", "w") as f:
    json.dump(cases, f)

base = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 8
state = collections.OrderedDict(
    plain=base,
    half=base.half(),
    brain=torch.tensor([1.0, -2.5, 3.0]).bfloat16(),
    transposed=base.t(),
    scalar=torch.tensor(0.5),
    position_ids=torch.arange(5),
)
torch.save(state, f"{folder}/state-dict.pt")
wrapped = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
optimizer = {"state": {}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.98), "params": [0, 1, 300, 70000]}]}
torch.save({"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": optimizer}, f"{folder}/training.pt")


class Payload:
    def __reduce__(self):
        return os.system, ("touch covey-payload-ran",)


torch.save({"plain": base, "evil": Payload()}, f"{folder}/payload.pt")
with open(f"{folder}/payload.bin", "wb") as f:
    pickle.dump(Payload(), f, protocol=2)

torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), f"{folder}/program.pt")
