"""PyTorch's DataLoader with PIL and torchvision: JPEG files -> RandomResizedCrop -> normalised tensors.

stdin: one JSON line of settings, then a number of passes per line; stdout: one JSON line of seconds per pass.
"""

import glob
import json
import sys
import time

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

settings = json.loads(sys.stdin.readline())


class Pictures(Dataset):
    def __init__(self):
        self.files = sorted(glob.glob(settings["folder"] + "/*.jpg"))
        self.transform = T.Compose(
            [
                T.RandomResizedCrop(settings["side"], scale=(0.9, 1.0), interpolation=T.InterpolationMode.BICUBIC),
                T.ToTensor(),
                T.Normalize(settings["mean"], settings["std"]),
            ]
        )

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return self.transform(Image.open(self.files[index]).convert("RGB"))


torch.set_num_threads(1)
loader = DataLoader(
    Pictures(),
    batch_size=settings["batch"],
    shuffle=True,
    num_workers=settings["workers"],
    persistent_workers=True,
)


def one_pass():
    begin = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - begin


one_pass()
print("{}", flush=True)
for line in sys.stdin:
    print(json.dumps([one_pass() for _ in range(int(line))]), flush=True)
