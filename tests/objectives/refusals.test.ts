import { describe, expect, it } from 'vitest';
import { type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { checkEvalData, checkEvalObjective } from '../../worker/eval/check-held-out.ts';
import { checkTowerFor } from '../../worker/objectives/check-tower.ts';
import { checkModelFor } from '../../worker/objectives/objective-inputs.ts';
import { checkParameterRules } from '../../worker/train/check-parameters.ts';
import { makeDataset, memoryStore, picture } from '../support/datasets.ts';

function parse(change: object, train: object = {}) {
  return runConfigSchema.safeParse({
    run: 'r',
    store: 'file:///unused',
    model: 'tiny',
    data: { manifest: 'file:///unused' },
    train: { steps: 1, globalBatch: 8, lanes: 2, ...train },
    ...change,
  });
}

/** Path and message of what is wrong. */
function problemsOf(change: object, train?: object): string[] {
  return (parse(change, train).error?.issues ?? []).map(({ path, message }) => `${path.join('.')} ${message}`);
}

describe('a run is refused before any worker starts', () => {
  it.each(['supcon', 'supervised'])('where %s has no classes', (objective) => {
    expect(problemsOf({ objective })).toEqual([
      `loss.classes is needed by objective ${objective}: the number of classes, or their names`,
    ]);
    expect(problemsOf({ objective, loss: { classes: 3 } })).toEqual([]);
    expect(problemsOf({ objective, loss: { classes: ['cat', 'dog'] } })).toEqual([]);
  });

  it('where options are set for an objective that does not read them', () => {
    expect(problemsOf({ loss: { negatives: 'none' } })).toEqual([
      'loss.negatives is for objective simclr, objective is clip',
    ]);
    expect(problemsOf({ loss: { classes: 3, labelSmoothing: 0.1 } })).toEqual([
      'loss.classes is for objectives supcon and supervised, objective is clip',
      'loss.labelSmoothing is for objective supervised, objective is clip',
    ]);
  });

  it('where held-out data are never looked at, doubled, or asked with a template that has no place for the class', () => {
    const datasets = [{ manifest: 'file:///a', tasks: ['retrieval'] }];
    expect(problemsOf({ eval: { everySteps: 5 } })).toEqual([
      'eval.datasets is empty, eval.everySteps is 5; name held-out data',
    ]);
    expect(problemsOf({ eval: { datasets } })).toEqual([
      'eval.everySteps is 0: eval.datasets would never be looked at',
    ]);
    expect(problemsOf({ eval: { everySteps: 5, datasets: [...datasets, ...datasets] } })).toEqual([
      'eval.datasets.1.name is the name of another dataset: val',
    ]);
    const templates = ['a photo of a thing'];
    expect(problemsOf({ eval: { everySteps: 5, datasets: [{ ...datasets[0], templates }] } })).toEqual([
      'eval.datasets.0.templates has one without {}: "a photo of a thing"',
    ]);
  });

  it('where a task needs a text tower, labels or whole batches that are not there', async () => {
    const evaluating = (tasks: string[], change: object = {}) =>
      parse({ eval: { everySteps: 5, datasets: [{ manifest: 'file:///a', tasks }] }, ...change }).data!;
    const zeroshot = evaluating(['health', 'zeroshot'], { objective: 'simclr' });
    expect(() => checkEvalObjective(zeroshot)).toThrow(/eval.datasets.0.tasks has zeroshot, which needs a text tower/);
    expect(() => checkEvalObjective({ ...zeroshot, objective: 'clip' })).not.toThrow();
    const cloze = evaluating(['knn'], { objective: 'cloze' });
    expect(() => checkEvalObjective(cloze)).toThrow(
      /tasks has knn, which needs an image tower; objective cloze trains none/,
    );
    const image = await picture(1);
    const small = await makeDataset(memoryStore(), [[{ image, caption: 'one' }]]);
    await expect(checkEvalData(evaluating(['loss']), 0, small)).rejects.toThrow(/whole batches of 8.*have 1 samples/);
    await expect(checkEvalData(evaluating(['knn']), 0, small)).rejects.toThrow(
      /has knn, which needs labels: 0.tar\/0 has none/,
    );
    await expect(checkEvalData(evaluating(['retrieval']), 0, small)).resolves.toBeUndefined();
  });

  it('where numbers make no sense', () => {
    expect(problemsOf({ objective: 'simclr', loss: { temperature: 0 } })).toHaveLength(1);
    expect(problemsOf({ objective: 'supervised', loss: { classes: 1 } })).toHaveLength(1);
    expect(problemsOf({ objective: 'supervised', loss: { classes: 3, labelSmoothing: 1 } })).toHaveLength(1);
    expect(problemsOf({ objective: 'byol' })).toHaveLength(1);
    expect(problemsOf({ objective: 'simclr' }, { globalBatch: 1, lanes: 1 })).toHaveLength(1);
    expect(problemsOf({ objective: 'simclr' }, { globalBatch: 8, lanes: 3 })).toEqual([
      'train.lanes must divide train.globalBatch (8), is 3',
    ]);
  });

  it('where MoCo has a queue that no whole number of batches fills, or numbers that make no sense', () => {
    const moco = (options: object, train?: object) =>
      problemsOf({ objective: 'moco-v2', loss: { moco: options } }, train);
    expect(moco({})).toEqual([]);
    expect(moco({ queue: 24 })).toEqual([]);
    expect(moco({ queue: 20 })).toEqual([
      'loss.moco.queue must be a multiple of train.globalBatch (8), so that a batch of keys replaces a whole older one; is 20',
    ]);
    expect(moco({ queue: 4 })).toHaveLength(1);
    expect(moco({}, { globalBatch: 24, lanes: 2 })).toEqual([expect.stringMatching(/^loss.moco.queue .*is 65536$/)]);
    for (const momentum of [-0.1, 1.1, Number.NaN]) expect(moco({ momentum })).toHaveLength(1);
    expect(moco({ momentum: 1 })).toEqual([]);
    expect(moco({ temperature: 0 })).toHaveLength(1);
    expect(moco({ queue: 2 ** 25 })).toHaveLength(1);
    expect(moco({ negatives: 3 })).toHaveLength(1);
  });

  it('where MoCo v3 has the options of v2, and the other way round', () => {
    expect(problemsOf({ objective: 'moco-v3', loss: { moco: { queue: 16, head: 'linear', momentum: 0.99 } } })).toEqual(
      [
        'loss.moco.queue is for objective moco-v2, objective is moco-v3',
        'loss.moco.head is for objective moco-v2, objective is moco-v3',
      ],
    );
    expect(problemsOf({ objective: 'moco-v2', loss: { moco: { layers: 3 } } })).toEqual([
      'loss.moco.layers is for objective moco-v3, objective is moco-v2',
    ]);
    expect(problemsOf({ objective: 'moco-v3' }, { globalBatch: 1, lanes: 1 })).toHaveLength(2);
    expect(problemsOf({ objective: 'moco-v3' }, { globalBatch: 8, lanes: 8 })).toEqual([
      expect.stringMatching(/^train.lanes leaves one sample per lane/),
    ]);
    expect(problemsOf({ objective: 'moco-v3' }, { microBatch: 2, gradCache: true })).toEqual([
      expect.stringMatching(/^train.microBatch must be a whole lane \(4\) with loss.moco.batchNorm/),
    ]);
    const moco = { batchNorm: false };
    expect(problemsOf({ objective: 'moco-v3', loss: { moco } }, { microBatch: 2, gradCache: true })).toEqual([]);
  });

  it('where rules by parameter name nothing of the model that MoCo trains', () => {
    const config = (match: string) =>
      parse({ objective: 'moco-v3' }, { groups: [{ match, frozen: true }] }).data as RunConfig;
    // `--stop-grad-conv1` of MoCo v3
    expect(() => checkParameterRules(config('^visual\\.conv1\\.'))).not.toThrow();
    expect(() => checkParameterRules(config('^predictor\\.'))).not.toThrow();
    expect(() => checkParameterRules(config('^text_projection$'))).toThrow(/matches no parameter/);
    expect(() => checkParameterRules(config('^key\\.'))).toThrow(/matches no parameter/);
  });

  it('where options of MoCo are set for another objective, or those of others for MoCo', () => {
    expect(problemsOf({ objective: 'simclr', loss: { moco: { momentum: 0.9 } } })).toEqual([
      'loss.moco is for objectives moco-v2 and moco-v3, objective is simclr',
    ]);
    expect(problemsOf({ objective: 'moco-v2', loss: { temperature: 0.07, projection: { width: 64 } } })).toEqual([
      'loss.temperature is for objectives simclr and supcon; objective moco-v2 reads loss.moco',
      'loss.projection is for objectives simclr and supcon; objective moco-v2 reads loss.moco',
    ]);
  });

  it('where a cloze hides all or none, or mixup has no α', () => {
    for (const maskRatio of [0, 1])
      expect(problemsOf({ objective: 'cloze', loss: { cloze: { maskRatio } } })).toHaveLength(1);
    expect(problemsOf({ objective: 'supervised', loss: { classes: 3, mixup: 0 } })).toHaveLength(1);
    expect(problemsOf({ loss: { mixup: 0.2, cloze: {}, rotationPairs: {} } })).toEqual([
      'loss.mixup is for objective supervised, objective is clip',
      'loss.rotationPairs is for objective rotation-pairs, objective is clip',
      'loss.cloze is for objective cloze, objective is clip',
    ]);
  });

  it('where mixup would mix less than a lane', () => {
    const mixup = { objective: 'supervised', loss: { classes: 3, mixup: 0.2 } };
    expect(problemsOf(mixup, { microBatch: 2 })).toEqual([
      "train.microBatch must be a whole lane (4) with loss.mixup, which mixes a lane's pictures, is 2; use more lanes instead",
    ]);
  });

  it('where a joint objective has no parts, one twice, or a weight that is not positive', () => {
    const joint = (...parts: object[]) => problemsOf({ objective: 'joint', loss: { joint: parts } });
    expect(problemsOf({ objective: 'joint' })).toEqual([
      'loss.joint is needed by objective joint: a list of {objective, weight}',
    ]);
    expect(joint({ objective: 'clip' }, { objective: 'simclr', weight: 0.5 })).toEqual([]);
    expect(joint({ objective: 'clip' })).toHaveLength(1);
    expect(joint({ objective: 'clip' }, { objective: 'joint' })).toHaveLength(1);
    for (const weight of [0, -1]) expect(joint({ objective: 'clip' }, { objective: 'simclr', weight })).toHaveLength(1);
    expect(joint({ objective: 'clip' }, { objective: 'simclr', weigth: 1 })).toHaveLength(1);
    expect(joint({ objective: 'clip' }, { objective: 'clip' })).toEqual([
      'loss.joint.1.objective clip is there twice; give it one weight',
    ]);
    expect(joint({ objective: 'clip' }, { objective: 'siglip' })).toEqual([
      'loss.joint clip and siglip would pull one logit scale two ways; choose one',
    ]);
    expect(joint({ objective: 'clip' }, { objective: 'supervised' })).toEqual([
      'loss.classes is needed by objective supervised: the number of classes, or their names',
    ]);
    expect(problemsOf({ loss: { joint: [{ objective: 'clip' }, { objective: 'simclr' }] } })).toEqual([
      'loss.joint is for objective joint, objective is clip',
    ]);
  });

  it('where siglip has no bias, or another objective has one', () => {
    const check = (objective: RunConfig['objective'], model: RunConfig['model']) => () =>
      checkModelFor({ run: 'r', objective, loss: parse({}).data!.loss }, resolveModelConfig(model));
    const withBias = { preset: 'tiny', initLogitBias: -10 };
    expect(check('siglip', 'tiny')).toThrow(/model.initLogitBias is needed by objective siglip/);
    expect(check('siglip', withBias)).not.toThrow();
    expect(check('clip', withBias)).toThrow(/is for objective siglip, objective is clip/);
    expect(check('clip', 'tiny')).not.toThrow();
    const { loss } = parse({ objective: 'joint', loss: { joint: [{ objective: 'siglip' }, { objective: 'simclr' }] } })
      .data!;
    const joint = (model: RunConfig['model']) => () =>
      checkModelFor({ run: 'r', objective: 'joint', loss }, resolveModelConfig(model));
    expect(joint('tiny')).toThrow(/is needed by objective siglip/);
    expect(joint(withBias)).not.toThrow();
  });

  it('where batch norms would see a part of a lane, or one value', () => {
    const resnet = { preset: 'tiny', vision: { kind: 'resnet', depth: 18, stem: 'cifar', imageSize: 8 } };
    const check = (train: object) => () => {
      const config = parse({ model: resnet }, train).data as RunConfig;
      checkTowerFor(config, resolveModelConfig(config.model));
    };
    expect(check({ lanes: 4 })).not.toThrow();
    expect(check({ lanes: 4, microBatch: 2 })).not.toThrow();
    expect(check({ lanes: 4, microBatch: 1 })).toThrow(/train.microBatch must be a whole lane \(2\) with a resnet/);
    expect(check({ lanes: 8 })).toThrow(/train.lanes leaves the last batch norms of this resnet one value per channel/);
    const synchronised =
      (train: object, change: object = {}) =>
      () => {
        const model = { ...resnet, vision: { ...resnet.vision, batchNorm: 'sync' } };
        const config = parse({ model, ...change }, { lanes: 8, ...train }).data as RunConfig;
        checkTowerFor(config, resolveModelConfig(config.model));
      };
    expect(synchronised({})).not.toThrow();
    expect(synchronised({ gradCache: true })).toThrow(/batchNorm must be lane with train.gradCache/);
    expect(synchronised({}, { objective: 'moco-v2' })).toThrow(/must be lane with objective moco-v2/);
  });
});
