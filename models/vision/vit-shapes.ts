import { type BlockInit, blockSpecs, imageBlockInit, xavierBlockInit } from '../clip/transformer-shapes.ts';
import {
  constant,
  frameworkDefault,
  type Initial,
  normal,
  normSpecs,
  type ParameterSpec,
  xavier,
} from '../parameter-spec.ts';
import { attentionPoolSpecs } from './attention-pool.ts';
import { sincosPositions } from './sincos-positions.ts';
import { patchCount, tokenCount, type VitLayout } from './vit-layout.ts';

interface VitInit {
  readonly classToken: Initial;
  readonly positions: Initial;
  readonly patch: Initial;
  readonly patchBias: Initial;
  readonly block: BlockInit;
}

/** CLIP: open_clip's `VisionTransformer`; MAE: `models_mae.py:initialize_weights`; MoCo v3: `vits.py:VisionTransformerMoCo`. */
function vitInit({ init, width, patchSize, mlpRatio }: VitLayout): VitInit {
  const pixels = 3 * patchSize ** 2;
  const hidden = width * mlpRatio;
  switch (init) {
    case 'clip': {
      const scaled = normal(width ** -0.5);
      const patch = frameworkDefault(pixels);
      return { classToken: scaled, positions: scaled, patch, patchBias: patch, block: imageBlockInit(width, hidden) };
    }
    case 'mae':
      return {
        classToken: normal(0.02),
        positions: normal(0.02),
        patch: xavier(pixels, width),
        patchBias: frameworkDefault(pixels),
        block: xavierBlockInit(width, hidden, 'packed'),
      };
    case 'moco-v3':
      return {
        classToken: normal(1e-6),
        positions: normal(0.02),
        patch: xavier(pixels, width),
        patchBias: constant(0),
        block: xavierBlockInit(width, hidden, 'apart'),
      };
  }
}

/** Every parameter, under open_clip's keys; with `embedDim` also the projection, in open_clip's place: after the embeddings. */
export function vitParameterSpecs(layout: VitLayout, embedDim: number | undefined): ParameterSpec[] {
  const { width, patchSize, layers, mlpRatio } = layout;
  const init = vitInit(layout);
  const blocks = Array.from({ length: layers }, (_, i) =>
    blockSpecs(`visual.transformer.resblocks.${i}`, width, width * mlpRatio, init.block),
  );
  return [
    ...(layout.classToken ? [{ name: 'visual.class_embedding', shape: [width], initial: init.classToken }] : []),
    ...(layout.positions === 'learnt' ? [positionSpec(layout, init.positions)] : []),
    ...(embedDim === undefined
      ? []
      : [{ name: 'visual.proj', shape: [width, embedDim], initial: normal(width ** -0.5) }]),
    { name: 'visual.conv1.weight', shape: [width, 3, patchSize, patchSize], initial: init.patch },
    ...(layout.patchBias ? [{ name: 'visual.conv1.bias', shape: [width], initial: init.patchBias }] : []),
    ...(layout.lnPre ? normSpecs('visual.ln_pre', width) : []),
    ...blocks.flat(),
    ...normSpecs('visual.ln_post', width),
    ...(layout.pooling === 'map' ? attentionPoolSpecs('visual.attn_pool', width, width * mlpRatio) : []),
  ];
}

/** Fixed positions: part of the model, never trained. */
export function vitBufferSpecs(layout: VitLayout): ParameterSpec[] {
  if (layout.positions === 'learnt') return [];
  const { width, classToken } = layout;
  const values = () => sincosPositions(Math.sqrt(patchCount(layout)), width, classToken);
  return [positionSpec(layout, { kind: 'fixed', values })];
}

function positionSpec(layout: VitLayout, initial: Initial): ParameterSpec {
  return { name: 'visual.positional_embedding', shape: [tokenCount(layout), layout.width], initial };
}
