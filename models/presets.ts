import type { ModelConfig } from '../common/config/run-config.ts';
import type { VitConfig } from '../common/config/vision-config.ts';

/**
 * Named models. The ViT-* sizes are open_clip's (`model_configs/ViT-B-32.json` and neighbours) to the number; `-quickgelu` names
 * the same shapes with the activation of the OpenAI weights. `tiny` is sized for 48-pixel pictures, short captions and a
 * vocabulary trained on them, so that a laptop's CPU trains it in minutes.
 */

const TEXT_512 = { contextLength: 77, vocabSize: 49_408, width: 512, heads: 8, layers: 12, mlpRatio: 4 };
const TEXT_768 = { ...TEXT_512, width: 768, heads: 12 };

const VIT_B_32: ModelConfig & { readonly vision: VitConfig } = {
  embedDim: 512,
  quickGelu: false,
  vision: { imageSize: 224, patchSize: 32, width: 768, layers: 12, headWidth: 64, mlpRatio: 4 },
  text: TEXT_512,
};
const VIT_B_16: ModelConfig = { ...VIT_B_32, vision: { ...VIT_B_32.vision, patchSize: 16 } };
const VIT_L_14: ModelConfig = {
  embedDim: 768,
  quickGelu: false,
  vision: { imageSize: 224, patchSize: 14, width: 1024, layers: 24, headWidth: 64, mlpRatio: 4 },
  text: TEXT_768,
};

/** open_clip's `RN50.json`. */
const RN50: ModelConfig = {
  embedDim: 1024,
  quickGelu: false,
  vision: { kind: 'modified-resnet', imageSize: 224, blocks: [3, 4, 6, 3], width: 64, headWidth: 64 },
  text: TEXT_512,
};
/** torchvision's, with CLIP's text tower beside it for objectives that have captions. */
const RESNET_50: ModelConfig = { ...RN50, vision: { kind: 'resnet', imageSize: 224, depth: 50 } };

const TINY: ModelConfig = {
  embedDim: 256,
  quickGelu: false,
  vision: { imageSize: 48, patchSize: 12, width: 192, layers: 4, headWidth: 64, mlpRatio: 4 },
  text: { contextLength: 16, vocabSize: 4096, width: 192, heads: 3, layers: 4, mlpRatio: 4 },
};

const RESNET_18_CIFAR: ModelConfig = {
  ...TINY,
  vision: { kind: 'resnet', imageSize: 32, depth: 18, stem: 'cifar' },
};

const quick = (model: ModelConfig): ModelConfig => ({ ...model, quickGelu: true });

/** Every preset by the name `model: NAME` takes. Sizes of open_clip's: 151.28 M, 149.62 M, 427.62 M and (RN50) 102.01 M parameters. */
export const presets: Readonly<Record<string, ModelConfig>> = {
  tiny: TINY,
  'ViT-B-32': VIT_B_32,
  'ViT-B-32-quickgelu': quick(VIT_B_32),
  'ViT-B-16': VIT_B_16,
  'ViT-B-16-quickgelu': quick(VIT_B_16),
  'ViT-L-14': VIT_L_14,
  'ViT-L-14-quickgelu': quick(VIT_L_14),
  RN50,
  'RN50-quickgelu': quick(RN50),
  resnet50: RESNET_50,
  'resnet18-cifar': RESNET_18_CIFAR,
};
