import type { Engine } from '../../engine/index.ts';
import { initialValues } from '../../models/clip/initial-values.ts';
import { parameterSpecs } from '../../models/clip/parameter-shapes.ts';
import type { PretrainedClip } from '../../models/formats/pretrained.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { pretrainedBackbone } from '../../transfer/backbone.ts';
import { JointModel } from '../../transfer/zero-shot/joint-model.ts';
import { SMALL_VISION } from './small-backbone.ts';

/** A CLIP with random weights and a vocabulary of its own, whose context holds short templates only. */
export async function smallClip(seed = 4): Promise<PretrainedClip> {
  const text = { contextLength: 14, vocabSize: 600, width: 16, heads: 2, layers: 1, mlpRatio: 2 };
  const config = { embedDim: 12, quickGelu: false, vision: SMALL_VISION, text };
  const weights = new Map(
    parameterSpecs(config, Math.log(10)).map((spec) => [spec.name, initialValues(spec, seed)] as const),
  );
  const captions = ['a photo of a green thing', 'a drawing of a red thing', 'blue, a colour', 'the red one'];
  const tokenizer = await loadTokenizer(trainBpe(captions, { vocabSize: 600 }), text.contextLength);
  return { kind: 'clip', config, weights, preprocess: { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] }, tokenizer };
}

/** The caller disposes it. */
export async function smallJointModel(engine: Engine): Promise<JointModel> {
  const clip = await smallClip();
  return new JointModel(clip, pretrainedBackbone(clip, 'a test'), engine);
}
