import { existsSync } from 'node:fs';
import type { RunConfig } from '../../common/config/run-config.ts';
import type { Logger } from '../../common/log.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { openTrainingData } from '../../worker/data/training-data.ts';
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
  const stores: ObjectStore[] = [];
  const openStore = async (url: string) => {
    const store = openObjectStore(url, { logger: modules.logger });
    stores.push(store);
    return store;
  };
  try {
    const { samples, plan } = await openTrainingData(config, openStore, modules.signal);
    const planned = async (step: number, lane: number) => {
      const located = Array.from(plan.laneSamples(step, lane).sampleIndices, (index) =>
        samples.locate(index, modules.signal),
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
    for (const store of stores) await store.close();
  }
}
