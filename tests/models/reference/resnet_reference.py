"""torchvision's ResNet on given weights: python resnet_reference.py settings.json

Reads raw little-endian float32 files named in the settings (weights by state-dict key, pixels BCHW, the features' gradient), writes features
in training and in evaluation, every parameter's gradient and every buffer after the training forward.
"""
import json
import sys

import numpy as np
import torch
import torchvision

settings = json.load(open(sys.argv[1]))
torch.set_num_threads(1)


def read(name, shape):
    return torch.from_numpy(np.fromfile(f"{settings['folder']}/{name}", dtype="<f4").reshape(shape).copy())


def write(name, tensor):
    tensor.detach().float().numpy().astype("<f4").tofile(f"{settings['folder']}/{name}")


model = getattr(torchvision.models, f"resnet{settings['depth']}")(weights=None)
model.fc = torch.nn.Identity()
state = {key: read(key, tensor.shape) for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}
model.load_state_dict(state, strict=False)
model = model.double() if settings["double"] else model
pixels = read("pixels", settings["pixelShape"]).to(next(model.parameters()).dtype)
model.eval()
with torch.no_grad():
    write("out.evaluation", model(pixels))
model.train()
features = model(pixels)
write("out.training", features)
features.backward(read("gradient", features.shape).to(features.dtype))
for name, parameter in model.named_parameters():
    write(f"out.{name}.grad", parameter.grad)
for name, buffer in model.named_buffers():
    if not name.endswith("num_batches_tracked"):
        write(f"out.{name}", buffer)
print(json.dumps({"torch": torch.__version__, "keys": [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]}))
