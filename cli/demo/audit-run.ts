import { existsSync } from 'node:fs';
import type { RunConfig } from '../../common/config/run-config.ts';
import type { Logger } from '../../common/log.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { openDataset, splitManifestUrl } from '../../worker/data/dataset.ts';
import { createPlan } from '../../worker/data/plan.ts';
import type { ObservedRun } from './observed-run.ts';
import { auditSamples, readSampleLogs, type SampleAudit } from './sample-audit.ts';

export interface AuditRunOptions {
  readonly config: RunConfig;
  readonly observed: ObservedRun;
  /** Files the workers wrote; one that never held a lane wrote none. */
  readonly sampleLogs: readonly string[];
}

/** Compares the workers' logs of consumed samples with the plan, computed again from the dataset and the config. */
export async function auditRun(
  options: AuditRunOptions,
  modules: { readonly logger: Logger; readonly signal: AbortSignal },
): Promise<SampleAudit> {
  const { config, observed } = options;
  const { storeUrl, key } = splitManifestUrl(config.data.manifest);
  const store = openObjectStore(storeUrl, { logger: modules.logger });
  try {
    const dataset = await openDataset(store, key, { signal: modules.signal });
    const plan = createPlan({
      manifestSha256: dataset.sha256,
      shardSampleCounts: dataset.shardSampleCounts,
      seed: config.seed,
      globalBatch: config.train.globalBatch,
      lanes: config.train.lanes,
      blockShards: config.data.shuffleBlockShards,
    });
    const planned = async (step: number, lane: number) => {
      const located = Array.from(plan.laneSamples(step, lane).sampleIndices, (index) =>
        dataset.locate(index, modules.signal),
      );
      return (await Promise.all(located)).map(({ sampleId }) => sampleId);
    };
    const lines = await readSampleLogs(options.sampleLogs.filter((file) => existsSync(file)));
    return await auditSamples(lines, {
      totalSteps: config.train.steps,
      steps: observed.steps,
      lanes: config.train.lanes,
      planned,
      ...(observed.kill ? { killedAtStep: observed.kill.step } : {}),
    });
  } finally {
    await store.close();
  }
}
