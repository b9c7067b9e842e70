import { createHash } from 'node:crypto';
import type { Engine } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import { encodePictures, type TextModules } from '../../worker/eval/encode-batch.ts';
import type { Backbone } from '../backbone.ts';
import type { PictureEncoder } from '../features/extract-features.ts';
import { clipModelOf, type TextModel } from '../zero-shot-head.ts';

/**
 * A model of pictures and texts in use: both towers on the engine that is active, and the tokenizer. Close with `dispose`.
 */
export class JointModel implements PictureEncoder, TextModules {
  readonly engine: Engine;
  readonly model: ClipModel;
  readonly tokenizer: Tokenizer;
  readonly imageSide: number;
  /** Numbers of an embedding. */
  readonly columns: number;
  /** In words for reports. */
  readonly origin: string;
  /** 16 hex digits over every weight, the tokenizer and what pixels are normalised by: equal digests make equal embeddings. */
  readonly digest: string;
  readonly #backbone: Backbone;

  /** @param backbone the image tower of `text`, perhaps for pictures of another side */
  constructor(text: TextModel, backbone: Backbone, engine: Engine) {
    this.engine = engine;
    this.#backbone = backbone;
    const weights = new Map(text.weights);
    for (const [name, { values }] of backbone.weights) weights.set(name, values);
    const config = { ...text.config, vision: backbone.vision };
    this.model = clipModelOf({ config, weights });
    this.tokenizer = text.tokenizer;
    this.imageSide = backbone.vision.imageSize;
    this.columns = config.embedDim;
    this.origin = backbone.origin;
    const facts = JSON.stringify([config, backbone.mean, backbone.std, text.tokenizer.sha256]);
    this.digest = digestOf(facts, this.model.readWeights());
  }

  encode(pixels: Uint8Array): Float32Array {
    return encodePictures(pixels, this.#backbone, this);
  }

  dispose(): void {
    this.model.dispose();
  }
}

function digestOf(facts: string, weights: ReadonlyMap<string, Float32Array>): string {
  const hash = createHash('sha256').update(facts);
  for (const [name, values] of weights) {
    hash.update(`${name};`).update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  return hash.digest('hex').slice(0, 16);
}
