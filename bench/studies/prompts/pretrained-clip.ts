import { CoveyError } from '../../../common/errors.ts';
import type { Engine } from '../../../engine/index.ts';
import { resolveModelConfig } from '../../../models/model-config.ts';
import { readTensors } from '../../../models/named-variables.ts';
import { trainBpe } from '../../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../../models/tokenizer/tokenizer.ts';
import { backboneOf } from '../../../transfer/backbone.ts';
import { JointModel } from '../../../transfer/zero-shot/joint-model.ts';
import { ICON_CATEGORIES } from '../../../worker/data/pack/icon-source.ts';
import { type IconPictures, withCategories } from '../pretraining/icon-pictures.ts';
import { METHODS, methodConfig } from '../pretraining/methods.ts';
import { trainFor } from '../pretraining/train.ts';
import { type CaptionSource, factsOf, recaptioned } from './captions.ts';

export interface PretrainOptions {
  readonly captions: CaptionSource;
  /** Texts whose words the tokenizer is to know besides the captions'. */
  readonly otherTexts: readonly string[];
  readonly seconds: number;
  readonly seed: number;
}

/** Names have up to eight words, templates up to six. */
const CONTEXT_LENGTH = 20;
const VOCABULARY_MAX = 4096;

/** A CLIP trained on the drawings of four artists, ready to be asked. The caller disposes it. */
export async function pretrainedClip(
  { captions, otherTexts, seconds, seed }: PretrainOptions,
  { engine, icons }: { readonly engine: Engine; readonly icons: IconPictures },
): Promise<JointModel> {
  // Every word is merged as far as the vocabulary goes, also those that occur once.
  const texts = [...(await namesOf(icons)), ...otherTexts];
  const json = trainBpe(texts, { vocabSize: VOCABULARY_MAX, minCount: 1 });
  const tokenizer = await loadTokenizer(json, CONTEXT_LENGTH);
  const configFor = (steps: number) => {
    const clip = METHODS.find(({ objective }) => objective === 'clip')!;
    const context = { ...icons, vocabSize: tokenizer.vocabSize, seed, classes: ICON_CATEGORIES, steps };
    const base = methodConfig(clip, context);
    if (typeof base === 'string') throw new CoveyError('INTERNAL', `Cannot pretrain: ${base}`);
    const model = resolveModelConfig(base.model);
    return { ...base, model: { ...model, text: { ...model.text, contextLength: CONTEXT_LENGTH } } };
  };
  const samples = recaptioned(withCategories(icons.train), captions);
  const trained = await trainFor(seconds, configFor, { engine, icons, tokenizer, samples });
  try {
    const { steps, lastLoss } = trained;
    process.stderr.write(
      `${captions.name}: ${steps} steps in ${trained.seconds.toFixed(0)} s, loss ${lastLoss.toFixed(3)}\n`,
    );
    const tensors = readTensors([...trained.model.parameters, ...(trained.model.buffers ?? [])]);
    const { data, model } = configFor(steps);
    const { vision, quickGelu } = model;
    const origin = `CLIP on ${captions.name}, ${steps} steps`;
    const backbone = backboneOf(tensors, { vision, quickGelu, mean: data.mean, std: data.std, origin });
    const weights = new Map([...tensors].map(([name, { values }]) => [name, values]));
    return new JointModel({ config: model, weights, tokenizer }, backbone, engine);
  } finally {
    trained.model.dispose();
  }
}

/** Of the drawings to learn from. */
async function namesOf({ train }: IconPictures): Promise<string[]> {
  const names = new Set<string>();
  for await (const located of train.samples()) names.add(factsOf(located).name);
  return [...names];
}
