import path from 'node:path';
import { writeJsonFile } from '../../common/json-file.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { type AdaptModules, adapt } from '../../transfer/domain/adapt.ts';
import { type DomainView, domainView, evenly } from '../../transfer/domain/diagnostics/domain-view.ts';
import type { DomainRecipe } from '../../transfer/domain/domain-recipe.ts';
import type { TransferNetwork } from '../../transfer/network.ts';
import { type Evaluation, evaluateNetwork, networkLogits } from '../../transfer/tune/evaluate.ts';
import type { TuneResult } from '../../transfer/tune/tune.ts';
import { renderPage } from '../report/page.ts';
import { type BackboneOptions, openBackbone } from './backbone-options.ts';
import { type DomainData, openDomains } from './domain-data.ts';
import { type AdaptationOptions, domainRecipeOf } from './domain-options.ts';
import { alignmentSection, domainSection } from './domain-report.ts';
import { checkedHead, type HeadOptions } from './head-options.ts';
import { keptTraining } from './kept-training.ts';
import type { LabelChoices } from './label-options.ts';
import { chosenBackbone, newNetwork } from './new-head.ts';
import { guessesOf, pictureSection, type ShownPicture } from './picture-section.ts';
import { expectSameTask } from './same-task.ts';
import type { ComputeOptions, TransferSession } from './session.ts';
import { classSection, factsSection, historySection, percent } from './task-report.ts';
import type { TuneOptions } from './tune-options.ts';
import { sampleIds, taskFacts } from './tune-task.ts';
import { methodOf, writeTuned } from './tuned-files.ts';

export interface DomainOptions
  extends AdaptationOptions,
    BackboneOptions,
    ComputeOptions,
    HeadOptions,
    LabelChoices,
    TuneOptions {
  readonly out: string;
}

interface Task {
  readonly recipe: DomainRecipe;
  readonly backbone: Backbone;
  readonly network: TransferNetwork;
  readonly data: DomainData;
}

interface Outcome {
  readonly result: TuneResult;
  readonly views: { readonly before: DomainView; readonly after: DomainView };
  /** On the source's validation split. */
  readonly source: Evaluation;
  readonly judged: readonly { readonly name: string; readonly evaluation: Evaluation }[];
}

/** The body of `covey domain`: everything it writes is in the output folder, and what it needs to go on as well. */
export async function domain(session: TransferSession, source: string, given: DomainOptions) {
  const options = await checkedHead(given);
  const recipe = domainRecipeOf(options);
  const task = await openTask(session, source, recipe, options);
  const { network, data } = task;
  const out = await makeFolder(options.out);
  await expectSameTask(path.join(out, 'task.json'), 'adaptation', adaptationFacts(task, options));
  const { engine } = session;
  const { signal } = session.context;
  const modules: AdaptModules = { engine, network, classes: data.classNames.length, ...data, signal };
  const look = () => lookAt(modules, { seed: recipe.tune.seed, pointsMax: options.points });
  const before = await look();
  const result = await keptTraining(session, recipe.tune, out, (hooks, from) => adapt(recipe, modules, hooks, from));
  session.say('looking at both domains');
  const after = await look();
  const outcome = { result, views: { before, after }, ...(await judge(modules, data)) };
  const files = await writeTuned(out, { ...task, recipe: recipe.tune, classNames: data.classNames, how: 'adapted' });
  const summary = summaryOf(task, outcome);
  const facts = { ...summary, classNames: data.classNames };
  await writeJsonFile(path.join(out, 'result.json'), facts);
  const report = path.join(out, 'report.html');
  await writeWhole(report, await page(session, task, outcome, modules, options));
  return { ...summary, files: [...files, report] };
}

async function openTask(
  session: TransferSession,
  source: string,
  recipe: DomainRecipe,
  options: DomainOptions,
): Promise<Task> {
  const { augment, seed } = recipe.tune;
  const opened = await openBackbone(session.context, source, options);
  const backbone = chosenBackbone(opened, options, seed);
  const data = await openDomains(session, options, { imageSide: backbone.vision.imageSize, augment, seed });
  const { classNames, source: split } = data;
  const head = { backbone, classNames, split, pictures: split.pictures };
  return { recipe, backbone, data, network: await newNetwork(session, opened, head, recipe.tune, options) };
}

/** What a folder's training is of: it is only gone on with where all of it is the same. */
function adaptationFacts({ data: { classNames, digests, source, target }, ...task }: Task, options: DomainOptions) {
  return {
    ...taskFacts({ ...task, classNames, split: source }, options),
    datasets: digests,
    target: sampleIds(target.train),
    targetValidation: sampleIds(target.validation),
  };
}

/** Both domains by pictures that are not trained on. */
function lookAt(
  { engine, network, source, target, signal }: AdaptModules,
  options: { readonly seed: number; readonly pointsMax: number },
): Promise<DomainView> {
  const [own, other] = [source, target].map(({ validation, pictures }) => ({ samples: validation, pictures }));
  return domainView(own!, other!, options, { engine, network, signal });
}

/** The one place that sees labels of the target, after all training. */
async function judge(
  { engine, network, classes, source, signal }: AdaptModules,
  { judges }: DomainData,
): Promise<Pick<Outcome, 'source' | 'judged'>> {
  const modules = { engine, network, signal };
  const own = await evaluateNetwork(source.validation, classes, { ...modules, pictures: source.pictures });
  const judged: { name: string; evaluation: Evaluation }[] = [];
  for (const { name, samples, pictures } of judges) {
    judged.push({ name, evaluation: await evaluateNetwork(samples, classes, { ...modules, pictures }) });
  }
  return { source: own, judged };
}

function summaryOf({ recipe, backbone, data }: Task, { result, views, source, judged }: Outcome) {
  const last = result.history.at(-1)!;
  const { before, after } = views;
  return {
    backbone: backbone.origin,
    method: recipe.method,
    trains: methodOf(recipe.tune),
    classes: data.classNames.length,
    sourceTrain: data.source.train.length,
    sourceValidation: data.source.validation.length,
    targetTrain: data.target.train.length,
    targetHeldOut: data.target.validation.length,
    steps: result.steps,
    bestStep: result.best.step,
    stoppedEarly: result.stoppedEarly,
    sourceAccuracy: source.accuracy,
    domainAccuracy: { before: before.distance?.accuracy ?? null, after: after.distance?.accuracy ?? null },
    proxyADistance: { before: before.distance?.proxyADistance ?? null, after: after.distance?.proxyADistance ?? null },
    adversaryAccuracy: last.measures?.['adversaryAccuracy'] ?? null,
    targetInformation: result.best.measures?.['targetInformation'] ?? null,
    judged: judged.map(({ name, evaluation }) => ({
      on: name,
      pictures: evaluation.samples,
      accuracy: evaluation.accuracy,
      classAccuracy: evaluation.classAccuracy,
    })),
    trainedParameters: result.trained,
    trainedShare: result.trained / result.backbone,
  };
}

async function page(
  session: TransferSession,
  { recipe, backbone, data }: Task,
  { result, views, source, judged }: Outcome,
  modules: AdaptModules,
  options: DomainOptions,
): Promise<string> {
  const { classNames } = data;
  const { before, after } = views;
  const share = ({ distance }: DomainView) => (distance ? percent(distance.accuracy) : '–');
  return renderPage({
    title: `Adapted to another domain: ${backbone.origin}`,
    summary: `${classNames.length} classes; ${data.source.train.length} labelled pictures of the source, ${data.target.train.length} of the target without labels; ${recipe.method}, ${methodOf(recipe.tune)}.`,
    createdAt: session.now(),
    headline: [
      { label: 'source accuracy', value: percent(source.accuracy), note: `${source.samples} pictures, validation` },
      ...judged.map(({ name, evaluation }) => ({
        label: `accuracy, ${name}`,
        value: percent(evaluation.accuracy),
        note: `${evaluation.samples} pictures; labels read for this alone`,
      })),
      { label: 'domains told apart', value: share(after), note: `${share(before)} before; 50 % is chance` },
      { label: 'steps', value: String(result.steps), note: `kept: ${result.best.step}` },
    ],
    sections: [
      domainSection(before, after),
      historySection(result.history, result.best),
      alignmentSection(result.history, result.best),
      await pictureSection(await shownPictures(modules, classNames), session.context.signal),
      ...judged.map(({ name, evaluation }) => classSection(evaluation, classNames, name)),
      factsSection(
        { backbone: backbone.origin, head: options.head, source: options.source, target: options.target },
        JSON.stringify(recipe, null, 2),
      ),
    ],
  });
}

const SHOWN = 12;

/** Some of the source with their labels, some of the target with what they are taken for. */
async function shownPictures({ source, target, classes, ...modules }: AdaptModules, classNames: readonly string[]) {
  const own = evenly(source.validation, SHOWN).map(
    (sample): ShownPicture => ({ sample, text: classNames[sample.label]!, note: '' }),
  );
  const others = evenly(target.validation, SHOWN);
  const logits_NK = await networkLogits(others, classes, { ...modules, pictures: target.pictures });
  const taken = guessesOf(logits_NK, classes).map(
    ({ predicted, probability }, n): ShownPicture => ({
      sample: others[n]!,
      text: classNames[predicted]!,
      note: percent(probability),
    }),
  );
  return [
    { title: 'source, with their labels', shown: own, pictures: source.pictures },
    { title: 'target, with what they are taken for', shown: taken, pictures: target.pictures },
  ];
}
