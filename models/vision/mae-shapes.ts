import { isVit, type VisionConfig } from '../../common/config/vision-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { blockSpecs, xavierBlockInit } from '../clip/transformer-shapes.ts';
import { constant, normal, normSpecs, type ParameterSpec, xavier } from '../parameter-spec.ts';
import { sincosPositions } from './sincos-positions.ts';
import { patchCount, tokenCount, type VitLayout, vitLayout } from './vit-layout.ts';
import { vitBufferSpecs, vitParameterSpecs } from './vit-shapes.ts';

/** Of a masked autoencoder; heads = width / headWidth. */
export interface DecoderShape {
  readonly width: number;
  readonly layers: number;
  readonly headWidth: number;
}

/** Hidden width of the decoder's perceptrons over its own, as MAE has it in all sizes. */
export const DECODER_MLP_RATIO = 4;

/** The encoder's layout. @throws CoveyError UNSUPPORTED where the tower has no patches */
export function maskedLayout(vision: VisionConfig): VitLayout {
  if (isVit(vision)) return vitLayout(vision);
  throw new CoveyError('UNSUPPORTED', `Cannot hide patches: the image tower must be a ViT: it is a ${vision.kind}`, {
    fields: { kind: vision.kind },
  });
}

/**
 * The encoder under open_clip's keys, without a projection, and under `decoder.` what predicts pixels and is dropped afterwards, drawn as in
 * `models_mae.py:initialize_weights`.
 */
export function maeParameterSpecs(vision: VisionConfig, decoder: DecoderShape): ParameterSpec[] {
  const layout = maskedLayout(vision);
  const { width, layers } = decoder;
  const hidden = width * DECODER_MLP_RATIO;
  const init = xavierBlockInit(width, hidden, 'packed');
  const blocks = Array.from({ length: layers }, (_, i) =>
    blockSpecs(`decoder.transformer.resblocks.${i}`, width, hidden, init),
  );
  return [
    ...vitParameterSpecs(layout, undefined),
    ...xavierLinearSpecs('decoder.embed', layout.width, width),
    { name: 'decoder.mask_token', shape: [width], initial: normal(0.02) },
    ...blocks.flat(),
    ...normSpecs('decoder.norm', width),
    ...xavierLinearSpecs('decoder.pred', width, 3 * layout.patchSize ** 2),
  ];
}

/** Fixed positions of both. */
export function maeBufferSpecs(vision: VisionConfig, { width }: DecoderShape): ParameterSpec[] {
  const layout = maskedLayout(vision);
  const values = () => sincosPositions(Math.sqrt(patchCount(layout)), width, layout.classToken);
  return [
    ...vitBufferSpecs(layout),
    { name: 'decoder.positional_embedding', shape: [tokenCount(layout), width], initial: { kind: 'fixed', values } },
  ];
}

function xavierLinearSpecs(name: string, inputs: number, outputs: number): ParameterSpec[] {
  return [
    { name: `${name}.weight`, shape: [outputs, inputs], initial: xavier(inputs, outputs) },
    { name: `${name}.bias`, shape: [outputs], initial: constant(0) },
  ];
}
