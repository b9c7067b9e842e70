import type { ModelConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { resolveModelConfig } from '../model-config.ts';
import { checkedVision, type ModelDescription } from './model-description.ts';
import type { HostTensor } from './safetensors.ts';
import { CLIP_PREPROCESS } from './weights.ts';

/** Width of a head in every CLIP that comes without a config (openai/CLIP, model.py, build_model). */
const HEAD_WIDTH = 64;

/**
 * The model whose open_clip keys these are, from their shapes, as openai/CLIP's `build_model` does. What no shape shows, the activation,
 * must be known.
 * @throws CoveyError UNSUPPORTED for a convolutional image tower, DATA_CORRUPT where a key is missing
 */
export function inferDescription(tensors: ReadonlyMap<string, HostTensor>, quickGelu: boolean): ModelDescription {
  if (tensors.has('visual.layer1.0.conv1.weight')) {
    throw new CoveyError(
      'UNSUPPORTED',
      'Cannot load the weights: their image tower is a ResNet; covey loads ViT towers',
    );
  }
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
  const width = size('visual.conv1.weight', 0);
  const patchSize = size('visual.conv1.weight', 2);
  const grid = Math.round(Math.sqrt(size('visual.positional_embedding', 0) - 1));
  const vision: ModelConfig['vision'] = {
    imageSize: grid * patchSize,
    patchSize,
    width,
    layers: layers('visual.transformer.resblocks.'),
    headWidth: HEAD_WIDTH,
    mlpRatio: size('visual.transformer.resblocks.0.mlp.c_fc.weight', 0) / width,
  };
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
}
