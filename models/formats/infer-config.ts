import type { VisionConfig } from '../../common/config/vision-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { resolveModelConfig } from '../model-config.ts';
import { checkedVision, type ModelDescription } from './model-description.ts';
import type { HostTensor } from './safetensors.ts';
import { CLIP_PREPROCESS } from './weights.ts';

/** Width of a head in every CLIP that comes without a config (openai/CLIP, model.py, build_model). */
const HEAD_WIDTH = 64;
/** Pixels per place of the last stage of CLIP's ResNet. */
const RESNET_STRIDE = 32;

/**
 * The model whose open_clip keys these are, from their shapes, as openai/CLIP's `build_model` does. What no shape shows, the activation,
 * must be known.
 * @throws CoveyError UNSUPPORTED for a tower of timm or torchvision, DATA_CORRUPT where a key is missing
 */
export function inferDescription(tensors: ReadonlyMap<string, HostTensor>, quickGelu: boolean): ModelDescription {
  refuseOtherTowers(tensors);
  const shape = (name: string) => {
    const found = tensors.get(name)?.shape;
    if (found) return found;
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot tell the model from its weights: ${name} is missing; name it with --model`,
    );
  };
  const size = (name: string, axis: number) => shape(name)[axis] ?? 0;
  const layers = (prefix: string) => {
    const numbers = [...tensors.keys()].map((name) =>
      name.startsWith(prefix) ? Number.parseInt(name.slice(prefix.length), 10) : -1,
    );
    return Math.max(...numbers) + 1;
  };
  const grid = (positions: string) => Math.round(Math.sqrt(size(positions, 0) - 1));
  const vision = tensors.has('visual.layer1.0.conv1.weight') ? clipResnet() : clipVit();
  const preprocess = CLIP_PREPROCESS;
  if (!tensors.has('token_embedding.weight'))
    return { kind: 'backbone', vision: checkedVision(vision), quickGelu, preprocess };
  const textWidth = size('ln_final.weight', 0);
  const config = resolveModelConfig({
    embedDim: size('text_projection', 1),
    quickGelu,
    initLogitBias: tensors.get('logit_bias')?.values[0],
    vision,
    text: {
      contextLength: size('positional_embedding', 0),
      vocabSize: size('token_embedding.weight', 0),
      width: textWidth,
      heads: textWidth / HEAD_WIDTH,
      layers: layers('transformer.resblocks.'),
      mlpRatio: size('transformer.resblocks.0.mlp.c_fc.weight', 0) / textWidth,
    },
  });
  return { kind: 'clip', config, preprocess, tokenizer: 'clip' };

  function clipResnet(): VisionConfig {
    const [one, two, three, four] = [1, 2, 3, 4].map((stage) => layers(`visual.layer${stage}.`));
    return {
      kind: 'modified-resnet',
      imageSize: grid('visual.attnpool.positional_embedding') * RESNET_STRIDE,
      blocks: [one!, two!, three!, four!],
      width: size('visual.layer1.0.conv1.weight', 0),
      headWidth: HEAD_WIDTH,
    };
  }

  function clipVit(): VisionConfig {
    const width = size('visual.conv1.weight', 0);
    const patchSize = size('visual.conv1.weight', 2);
    return {
      imageSize: grid('visual.positional_embedding') * patchSize,
      patchSize,
      width,
      layers: layers('visual.transformer.resblocks.'),
      headWidth: HEAD_WIDTH,
      mlpRatio: size('visual.transformer.resblocks.0.mlp.c_fc.weight', 0) / width,
    };
  }
}

/** @throws CoveyError UNSUPPORTED naming whose tower it is */
function refuseOtherTowers(tensors: ReadonlyMap<string, HostTensor>): void {
  const names = [...tensors.keys()];
  const refuse = (whose: string): never => {
    throw new CoveyError(
      'UNSUPPORTED',
      `Cannot load the weights: their image tower is ${whose}; without a config covey knows CLIP's ViT and CLIP's ResNet`,
    );
  };
  if (names.some((name) => name.startsWith('visual.trunk.'))) refuse('one of timm (keys visual.trunk.*)');
  const isResnet = tensors.has('visual.layer1.0.conv1.weight');
  if (isResnet && !tensors.has('visual.attnpool.positional_embedding')) refuse('a ResNet without attention pool');
}
