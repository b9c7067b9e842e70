import { sweepL2 } from '../../models/linear/l2-sweep.ts';
import { type Backbone, scratchBackbone } from '../../transfer/backbone.ts';
import type { PictureSource } from '../../transfer/data/picture-source.ts';
import { labelledFeatures } from '../../transfer/features/extract-features.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import type { TuneRecipe } from '../../transfer/tune/tune-recipe.ts';
import { zeroShotHead } from '../../transfer/zero-shot-head.ts';
import { fillTemplate } from '../../worker/eval/text-classifier.ts';
import type { OpenedBackbone } from './backbone-options.ts';
import type { HeadOptions } from './head-options.ts';
import type { LabelSplit } from './label-options.ts';
import type { TransferSession } from './session.ts';
import { warnOfCutTexts } from './zero-shot.ts';

/** The backbone, or random weights of its shape. */
export function chosenBackbone({ backbone }: OpenedBackbone, { fromScratch }: HeadOptions, seed: number): Backbone {
  return fromScratch === true ? scratchBackbone(backbone, seed) : backbone;
}

export interface HeadTask {
  readonly backbone: Backbone;
  readonly classNames: readonly string[];
  /** What a probe is fitted to. */
  readonly split: LabelSplit;
  readonly pictures: PictureSource;
}

/** The backbone with its new head; the session closes it. */
export async function newNetwork(
  session: TransferSession,
  opened: OpenedBackbone,
  { backbone, classNames, split, pictures }: HeadTask,
  { seed, precision, adapter }: TuneRecipe,
  options: HeadOptions,
): Promise<TransferNetwork> {
  const space = options.head === 'zeroshot' ? 'embedding' : 'features';
  const shape = { classes: classNames.length, space, seed, precision, ...(adapter ? { adapter } : {}) } as const;
  const network = session.own(new TransferNetwork(backbone, shape), (one) => one.dispose());
  const { engine } = session;
  if (options.head === 'zeroshot') {
    const text = await opened.text('use --head random or --head probe');
    const words = { classNames, templates: options.template ?? ['{}'] };
    const { tokenizer } = text;
    const isCut = (one: string) => tokenizer.lengthOf(one) > tokenizer.contextLength;
    warnOfCutTexts(
      session,
      words.templates,
      (template) => classNames.filter((name) => isCut(fillTemplate(template, name))).length,
    );
    const { signal } = session.context;
    network.setHead(await zeroShotHead(text, words, engine, { signal, onTexts: session.progress('texts') }));
  } else if (options.head === 'probe') {
    const { signal } = session.context;
    const modules = { engine, network, pictures, signal };
    const train = await labelledFeatures(split.train, modules);
    const validation = await labelledFeatures(split.validation, modules);
    const { best } = sweepL2(train, validation, { classes: classNames.length, signal });
    network.setHead(best.fit.classifier);
  }
  return network;
}
