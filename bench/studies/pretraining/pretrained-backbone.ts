import { CoveyError } from '../../../common/errors.ts';
import { openObjectStore } from '../../../common/objectstore/open.ts';
import type { Engine } from '../../../engine/index.ts';
import { resolveModelConfig } from '../../../models/model-config.ts';
import { readTensors } from '../../../models/named-variables.ts';
import { type Backbone, backboneOf } from '../../../transfer/backbone.ts';
import { openTokenizer } from '../../../worker/data/open-tokenizer.ts';
import { ICON_CATEGORIES } from '../../../worker/data/pack/icon-source.ts';
import type { IconPictures } from './icon-pictures.ts';
import { METHODS, methodConfig } from './methods.ts';
import { trainFor, trainStepsOf } from './train.ts';

export interface PretrainedSubject {
  readonly name: string;
  /** Over the backbone of the pretraining study. */
  readonly model?: object;
  readonly globalBatch?: number;
}

export interface PretrainModules {
  readonly engine: Engine;
  readonly icons: IconPictures;
}

/** By the clock, or by steps. */
export type PretrainLength = { readonly seed: number } & ({ readonly seconds: number } | { readonly steps: number });

/** An image tower trained as CLIP is on the names of the training artists' icons. */
export async function pretrainedBackbone(
  subject: PretrainedSubject,
  { seed, ...length }: PretrainLength,
  { engine, icons }: PretrainModules,
): Promise<Backbone> {
  const clip = METHODS.find(({ objective }) => objective === 'clip')!;
  const { model, globalBatch = 256 } = subject;
  const configFor = (steps: number) => {
    const context = { ...icons, seed, classes: ICON_CATEGORIES, steps };
    const base = methodConfig({ ...clip, globalBatch }, context);
    const config = methodConfig({ ...clip, globalBatch, ...merged(base, model) }, context);
    if (typeof config === 'string') throw new CoveyError('INTERNAL', `Cannot pretrain ${subject.name}: ${config}`);
    return config;
  };
  const tokenizer = await openTokenizer(icons.tokenizer, 12, async (url) => openObjectStore(url));
  const modules = { engine, icons, tokenizer };
  const trained =
    'steps' in length
      ? await trainStepsOf(configFor(length.steps), modules)
      : await trainFor(length.seconds, configFor, modules);
  try {
    process.stderr.write(
      `${subject.name}: pretrained ${trained.steps} steps in ${trained.seconds.toFixed(0)} s, loss ${trained.lastLoss.toFixed(3)}\n`,
    );
    const config = configFor(trained.steps);
    const { vision, quickGelu } = resolveModelConfig(config.model);
    const tensors = readTensors([...trained.model.parameters, ...(trained.model.buffers ?? [])]);
    const { mean, std } = config.data;
    return backboneOf(tensors, { vision, quickGelu, mean, std, origin: `${subject.name}, ${trained.steps} steps` });
  } finally {
    trained.model.dispose();
  }
}

/** The study's own text tower and embedding, with another image tower. */
function merged(base: ReturnType<typeof methodConfig>, model: object | undefined) {
  if (model === undefined || typeof base === 'string' || typeof base.model === 'string') return {};
  return { model: { ...base.model, ...model } };
}
