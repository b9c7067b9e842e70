"""Writes augment-reference.json beside itself: what torchvision 0.29.2 and Pillow 13.0.0 make of a fixed picture.

Run with a Python that has both: python tests/support/augment-reference.py
"""

import base64, json, pathlib
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional as F
from torchvision.transforms import InterpolationMode as Mode

SIDE = 16


def picture(width, height):
    """A linear congruential generator over a gradient: all hues, some greys, both ends of the range."""
    state, out = 12345, bytearray()
    for i in range(width * height):
        pixel = []
        for c in range(3):
            state = (1103515245 * state + 12345) % 2**31
            pixel.append(min(255, max(0, (state >> 16) % 320 - 32)))
        out += bytes([pixel[0]] * 3 if i % 7 == 0 else pixel)
    return Image.frombytes('RGB', (width, height), bytes(out))


def b64(image):
    return base64.b64encode(image.tobytes()).decode()


square, wide = picture(SIDE, SIDE), picture(37, 29)
cases = {}
for factor in (0.0, 0.37, 1.0, 1.63):
    cases[f'brightness {factor}'] = F.adjust_brightness(square, factor)
    cases[f'contrast {factor}'] = F.adjust_contrast(square, factor)
    cases[f'saturation {factor}'] = F.adjust_saturation(square, factor)
for turns in (-0.4, -0.1, 0.0, 0.2, 0.5):
    cases[f'hue {turns}'] = F.adjust_hue(square, turns)
cases['grayscale'] = F.rgb_to_grayscale(square, 3)
cases['solarize 128'] = ImageOps.solarize(square)
cases['flip'] = F.hflip(square)
for sigma in (0.1, 0.7, 2.0, 9.0):
    cases[f'pillow {sigma}'] = square.filter(ImageFilter.GaussianBlur(radius=sigma))
for sigma, radius in ((0.4, 1), (1.3, 5), (2.0, 11)):
    cases[f'gaussian {sigma} {radius}'] = F.gaussian_blur(square, 2 * radius + 1, sigma)
for name, mode in (('bilinear', Mode.BILINEAR), ('bicubic', Mode.BICUBIC)):
    cases[f'crop {name}'] = F.resized_crop(wide, 3, 5, 21, 28, [SIDE, SIDE], mode)
chain = F.resized_crop(wide, 3, 5, 21, 28, [SIDE, SIDE], Mode.BILINEAR)
chain = F.adjust_contrast(F.adjust_brightness(F.adjust_hue(F.adjust_saturation(chain, 0.9), -0.06), 1.3), 0.8)
cases['chain'] = F.hflip(ImageOps.solarize(chain.filter(ImageFilter.GaussianBlur(radius=0.8))))

out = {'side': SIDE, 'square': b64(square), 'wide': b64(wide), 'cases': {name: b64(one) for name, one in cases.items()}}
pathlib.Path(__file__).with_suffix('.json').write_text(json.dumps(out, indent=1) + '\n')
