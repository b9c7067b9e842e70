import { describe, expect, it } from 'vitest';
import { createWorkerProcessMetrics } from '../../common/metrics/create-metrics.ts';
import { Telemetry } from '../../worker/telemetry.ts';
import type { AppliedStep } from '../../worker/train/step-loop.ts';

function applied(uses: { kernel: string; calls: number }[], skipped = false): AppliedStep {
  const engineFallback = { uses: uses.map((use) => ({ ...use, milliseconds: 1 })), newlyHot: [] };
  const engineMemory = { tensors: 7, liveBytes: 2000, peakBytes: 3000 };
  const reply = { phaseSeconds: {}, skipped, engineFallback, engineMemory };
  const loaded = { samplesByDataset: { cats: 6, dogs: 2 } };
  return { loaded, reply, dataSeconds: 0 } as unknown as AppliedStep;
}

describe('Telemetry', () => {
  it('exports the calls of each JavaScript fallback, and goes on counting after a new compute thread', async () => {
    const metrics = createWorkerProcessMetrics({ run: 'r', role: 'worker', version: '0' } as never);
    const telemetry = new Telemetry(metrics);
    telemetry.applied(applied([{ kernel: 'Unique', calls: 3 }]), 0);
    telemetry.applied(applied([{ kernel: 'Unique', calls: 5 }]), 0);
    telemetry.applied(applied([{ kernel: 'Unique', calls: 2 }]), 0);
    telemetry.close();
    expect(await metrics.registry.metrics()).toContain('covey_engine_fallback_calls_total{kernel="Unique"} 7');
    expect(await metrics.registry.metrics()).toContain('covey_dataset_samples_total{dataset="cats"} 18');
  });

  it('counts the samples of steps that changed no weights apart', async () => {
    const metrics = createWorkerProcessMetrics({ run: 'r', role: 'worker', version: '0' } as never);
    const telemetry = new Telemetry(metrics);
    telemetry.applied(applied([], true), 0);
    telemetry.discarded(applied([]).loaded, 'aborted');
    telemetry.close();
    const text = await metrics.registry.metrics();
    expect(text).toContain('covey_samples_discarded_total{reason="non_finite"} 8');
    expect(text).toContain('covey_samples_discarded_total{reason="aborted"} 8');
    expect(text).not.toMatch(/covey_dataset_samples_total\{/);
  });
});
