import path from 'node:path';
import type { Command } from 'commander';
import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { elementCount } from '../../models/clip/parameter-shapes.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import type { Run } from '../../proto/gen/covey/v1/Run.ts';
import type { RunClient } from '../../proto/run-client.ts';
import { openDataset, splitManifestUrl } from '../../worker/data/dataset.ts';
import type { TrainingData } from '../../worker/data/training-data.ts';
import { checkEvalData, checkEvalObjective } from '../../worker/eval/check-held-out.ts';
import { checkTowerFor } from '../../worker/objectives/check-tower.ts';
import { weakViews } from '../../worker/objectives/check-views.ts';
import { checkModelFor } from '../../worker/objectives/objective-inputs.ts';
import { parameterSpecsFor } from '../../worker/objectives/trained-parameters.ts';
import { checkEngineFor } from '../../worker/train/check-engine.ts';
import { checkParameterRules } from '../../worker/train/check-parameters.ts';
import { chooseInitialWeights, type InitialWeights, unlikePreprocess } from '../../worker/train/initial-weights.ts';
import { adviseThreads } from '../cluster/advise-threads.ts';
import { startLocalCluster } from '../cluster/local-cluster.ts';
import type { CommandContext } from '../context.ts';
import { EXIT, type ExitCode } from '../exit-codes.ts';
import { endText, followRun } from '../follow-run.ts';
import { storeOpener, withStore } from '../open-store.ts';
import { type EngineChoice, engineOption, wholeNumber } from '../option-values.ts';
import { exitCodeOfState, runCommand } from '../run-command.ts';
import { withRunClient } from '../run-connection.ts';
import { runAsJson, stateName } from '../run-view.ts';
import { checkTrainingData, withTrainingData } from '../training-data.ts';
import { readConfig, SET_OPTION } from './config.ts';

interface LaunchOptions {
  readonly dryRun?: boolean;
  readonly detach?: boolean;
  readonly set?: readonly string[];
  readonly local?: number;
  readonly resume?: boolean;
  readonly engine?: EngineChoice;
}

/** How long a stop may take when a local cluster is interrupted: the checkpoint included. */
const LOCAL_STOP_MS = 60_000;

export function addLaunchCommand(program: Command): void {
  program
    .command('launch')
    .description('submit a run and follow it; Ctrl-C only stops following')
    .argument('<file>', 'run.yaml')
    .option('--dry-run', 'check config, data and store, say what would run, submit nothing')
    .option('-d, --detach', 'return once the run is submitted')
    .option(...SET_OPTION)
    .addOption(engineOption('short for --set workers.engine=<name>'))
    .option('--resume', 'if the run exists and was stopped or failed, continue it')
    .option(
      '--local <workers>',
      'start a cluster of this many workers for this run only; Ctrl-C then checkpoints and stops it',
      wholeNumber(1, 256),
    )
    .action(
      runCommand<LaunchOptions>(async (context, [file = ''], options) => {
        const sets = [...(options.set ?? []), ...(options.engine ? [`workers.engine=${options.engine}`] : [])];
        const { config: written } = await readConfig(context, file, sets);
        checkTraining(written, context);
        await checkObjective(written, context);
        await checkHeldOut(written, context);
        const config = await withInitialWeights(written, context);
        if (options.dryRun) {
          if (options.local !== undefined) adviseThreads(config, options.local, context);
          return dryRun(context, config);
        }
        if (options.local !== undefined) return launchLocally(context, config, options.local, options.resume ?? false);
        return launch(context, config, { detach: options.detach ?? false, resume: options.resume ?? false });
      }),
    );
}

/** Refuses rules that do not fit the model, and what the named engine cannot train; what `auto` will be only the workers know. */
function checkTraining(config: RunConfig, { output }: CommandContext): void {
  checkParameterRules(config);
  const weak = weakViews(config);
  if (weak !== undefined) output.warn(weak);
  const { engine } = config.workers;
  if (engine === 'auto') return;
  for (const warning of checkEngineFor(config, engine).warnings) output.warn(warning);
}

/** Refuses a model or a dataset that lacks what the objective learns from. */
async function checkObjective(config: RunConfig, context: CommandContext): Promise<void> {
  checkModelFor(config, resolveModelConfig(config.model));
  checkTowerFor(config, resolveModelConfig(config.model));
  await checkTrainingData(context, config);
}

/** Refuses evaluation tasks that the objective or the held-out data cannot serve. */
async function checkHeldOut(config: RunConfig, context: CommandContext): Promise<void> {
  checkEvalObjective(config);
  for (const [i, { manifest }] of config.eval.datasets.entries()) {
    const { storeUrl, key } = splitManifestUrl(manifest);
    await withStore(context, storeUrl, async (store) =>
      checkEvalData(config, i, await openDataset(store, key, { signal: context.signal }), context.signal),
    );
  }
}

/**
 * Refuses weights to begin with that cannot be read or are of another model.
 * @returns the config with a run's newest checkpoint named: each worker begins with the same, whatever that run does
 */
async function withInitialWeights(config: RunConfig, context: CommandContext): Promise<RunConfig> {
  const openStore = async (url: string) => storeOpener(context)(url);
  const initial = await chooseInitialWeights(config, resolveModelConfig(config.model), openStore, context.signal);
  if (initial === undefined) return config;
  const { weights, model } = initial;
  const unlike = unlikePreprocess(config.data, model.description.preprocess);
  if (unlike !== undefined) context.output.warn(unlike);
  context.output.message(
    `begins with ${initialText(weights)} of ${model.url}; what else it trains is drawn from the seed`,
  );
  return { ...config, train: { ...config.train, initFrom: model.url } };
}

function initialText(weights: InitialWeights): string {
  const both = [...weights.keys()].some((name) => !name.startsWith('visual.'));
  return both ? 'both towers' : 'the image tower';
}

interface SubmitOptions {
  readonly detach: boolean;
  readonly resume: boolean;
}

async function launch(
  context: CommandContext,
  config: RunConfig,
  { detach, resume }: SubmitOptions,
): Promise<ExitCode> {
  const { output } = context;
  return withRunClient(context, async (client) => {
    const run = await submit(client, config, resume, context);
    output.message(`run ${run.run} submitted to ${context.coordinator}`);
    if (detach) {
      output.result(
        runAsJson(run),
        `run ${run.run} is ${stateName(run.state)}; follow it with \`covey status ${run.run} -w\``,
      );
      return EXIT.ok;
    }
    try {
      const ended = await followRun(client, run.run, context, { afterStep: run.step, jsonLines: true });
      output.line({ type: 'end', ...runAsJson(ended) }, endText(ended));
      return exitCodeOfState(stateName(ended.state));
    } catch (thrown) {
      if (!CoveyError.is(thrown, 'CANCELLED')) throw thrown;
      output.message(
        `no longer following; the run goes on. Follow it again with \`covey status ${run.run} -w\`, end it with \`covey stop ${run.run}\`.`,
      );
      return EXIT.interrupted;
    }
  });
}

/** Submits the run; the same config again finds it as it is, and a stopped one continues only where that was asked for. */
async function submit(client: RunClient, config: RunConfig, resume: boolean, { signal }: CommandContext): Promise<Run> {
  const run = await client.submitRun(JSON.stringify(config), { signal });
  const state = stateName(run.state);
  if (!['stopped', 'failed'].includes(state)) return run;
  if (resume) return client.resumeRun(run.run, { signal });
  throw new CoveyError(
    'ALREADY_EXISTS',
    `Cannot launch ${run.run}: it exists and is ${state} at step ${run.step}; add --resume to continue it`,
  );
}

/** A cluster for one run. It cannot outlive this command, so an interrupt checkpoints and stops the run first. */
async function launchLocally(
  context: CommandContext,
  config: RunConfig,
  workers: number,
  resume: boolean,
): Promise<ExitCode> {
  const clusterEnd = new AbortController();
  const cluster = await startLocalCluster(
    { workers, store: config.store, port: 0, httpPort: 0, logFolder: path.resolve('.covey/logs') },
    { ...context, signal: clusterEnd.signal },
  );
  const local: CommandContext = { ...context, coordinator: cluster.coordinatorAddress };
  context.output.message(
    `local cluster: ${workers} workers, coordinator ${cluster.coordinatorAddress}, metrics ${cluster.httpUrl}/metrics`,
  );
  adviseThreads(config, workers, context);
  try {
    const code = await launch(local, config, { detach: false, resume });
    if (code === EXIT.interrupted) await stopRun(local, config.run);
    return code;
  } finally {
    await cluster.close();
    clusterEnd.abort();
  }
}

async function stopRun(context: CommandContext, run: string): Promise<void> {
  const signal = AbortSignal.timeout(LOCAL_STOP_MS);
  const patient = { ...context, signal };
  context.output.message('checkpointing and stopping the run, because its cluster ends with this command …');
  await withRunClient(patient, async (client) => {
    await client.stopRun(run, { signal });
    const stopped = await followRun(client, run, patient);
    context.output.message(`${endText(stopped)}; continue it with the same command and --resume`);
  });
}

async function dryRun(context: CommandContext, config: RunConfig): Promise<ExitCode> {
  const model = resolveModelConfig(config.model);
  const parameters = parameterSpecsFor(config, model).reduce((sum, { shape }) => sum + elementCount(shape), 0);
  return withTrainingData(context, config, async ({ parts, samples }) => {
    const { globalBatch, steps, lanes } = config.train;
    const epochs = (steps * globalBatch) / samples.sampleCount;
    const shares = sharesOf(parts, steps * globalBatch);
    const plan = {
      run: config.run,
      parameters,
      samples: samples.sampleCount,
      shards: parts.reduce((sum, { dataset }) => sum + dataset.shards.length, 0),
      datasets: shares,
      steps,
      globalBatch,
      lanes,
      laneBatch: globalBatch / lanes,
      epochs,
      initFrom: config.train.initFrom ?? null,
      store: config.store,
      datasetSha256: samples.sha256,
    };
    const text = [
      `run ${config.run}: ${(parameters / 1e6).toFixed(1)} M parameters, ${config.train.precision}`,
      `data: ${plan.samples} samples in ${plan.shards} shards (sha256 ${samples.sha256.slice(0, 12)})`,
      ...(parts.length > 1 ? shares.map(shareText) : []),
      `${steps} steps of ${globalBatch} samples = ${epochs.toFixed(1)} epochs, in ${lanes} lanes of ${globalBatch / lanes}: up to ${lanes} workers`,
      `checkpoints every ${config.checkpoint.everySteps} steps in ${config.store}`,
      'nothing was submitted',
    ].join('\n');
    context.output.result(plan, text);
    return EXIT.ok;
  });
}

/** What the run takes from each dataset. */
function sharesOf(parts: TrainingData['parts'], consumed: number) {
  const total = parts.reduce((sum, { weight }) => sum + weight, 0);
  return parts.map(({ name, weight, dataset }) => ({
    name,
    samples: dataset.sampleCount,
    share: weight / total,
    epochs: (consumed * weight) / total / dataset.sampleCount,
  }));
}

function shareText({ name, samples, share, epochs }: ReturnType<typeof sharesOf>[number]): string {
  return `  ${name}: ${(100 * share).toFixed(1)} % of every batch, ${samples} samples, ${epochs.toFixed(1)} epochs of its own`;
}
