import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { createCheckpointMetrics } from '../../common/metrics/checkpoint-metrics.ts';
import { createNatsMetrics } from '../../common/metrics/nats-metrics.ts';
import { createWorkerMetrics } from '../../common/metrics/worker-metrics.ts';
import { laneFlops } from '../../models/clip/step-flops.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { Telemetry } from '../../worker/telemetry.ts';
import { lanesFlops } from '../../worker/train/step-flops.ts';
import { syntheticLanes } from '../../worker/train/synthetic-lanes.ts';

const MODEL = resolveModelConfig('tiny');

describe('the operations of a worker’s lanes', () => {
  it('follow each lane’s longest caption, rounded up as the text tower cuts it', () => {
    const [short] = syntheticLanes(MODEL, { lanes: 1, laneBatch: 3, captionTokens: 5 });
    const [long] = syntheticLanes(MODEL, { lanes: 1, laneBatch: 3 });
    const mixed = lanesFlops(MODEL, 6, [short!, long!]);
    const expected = [6, 16].map((textTokens) => laneFlops(MODEL, { samples: 3, globalBatch: 6, textTokens }).total);
    expect(mixed.total).toBe(expected[0]! + expected[1]!);
    expect(expected[0]).toBeLessThan(expected[1]!);
  });

  it('grow covey_model_flops_total with every step applied', async () => {
    const registry = new Registry();
    const metrics = {
      worker: createWorkerMetrics(registry),
      nats: createNatsMetrics(registry),
      checkpoint: createCheckpointMetrics(registry),
    };
    const telemetry = new Telemetry(metrics);
    const reply = {
      loss: 1,
      logitScale: 14,
      metrics: {},
      gradNorm: 1,
      skipped: false,
      phaseSeconds: { forward: 0.1 },
      weightsDigest: '0',
      health: null,
      learningRate: 0.001,
      stepSeconds: 0.2,
      modelFlops: 2.5e9,
      engineMemory: { tensors: 1, bytes: 4, liveBytes: 4, peakBytes: 8, reservedBytes: 8 },
      tensorGrowth: null,
      engineFallback: { uses: [], newlyHot: [] },
    };
    const loaded = { step: 0, lanes: [], consumed: [], samplesByDataset: {}, replaced: [], release: () => undefined };
    telemetry.applied({ loaded, reply, wallSeconds: 0.2, dataSeconds: 0 }, 0);
    telemetry.applied({ loaded, reply, wallSeconds: 0.2, dataSeconds: 0 }, 0);
    telemetry.close();
    expect(await registry.metrics()).toMatch(/^covey_model_flops_total 5000000000$/m);
  });
});
