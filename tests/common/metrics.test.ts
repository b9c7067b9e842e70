import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { boundedLabel, OTHER, WORKER_SLOTS_MAX, workerLabel } from '../../common/metrics/bounded.ts';
import { createProcessMetrics, createWorkerProcessMetrics } from '../../common/metrics/create-metrics.ts';
import { type MetricsServer, serveMetrics } from '../../common/metrics/serve-metrics.ts';

const identity = { version: '1.2.3', commit: 'abc', run: 'first', configSha256: 'f'.repeat(64) };

describe('the metrics', () => {
  let server: MetricsServer | undefined;
  afterEach(async () => {
    await server?.close();
    server = undefined;
  });

  it('follow Prometheus naming: prefix, base units, counters end in _total', async () => {
    const { registry } = createWorkerProcessMetrics(identity);
    const own = (await registry.getMetricsAsJSON()).filter((metric) => metric.name.startsWith('covey_'));
    expect(own.length).toBeGreaterThan(25);
    for (const { name, type, help } of own) {
      expect(help, name).not.toBe('');
      expect(name).toMatch(/^covey_[a-z0-9_]+$/);
      expect(name, 'milliseconds and the like have no place').not.toMatch(/_(ms|millis|kb|mb|percent)(_|$)/);
      expect(name.endsWith('_total'), name).toBe(String(type) === 'counter');
      if (String(type) === 'histogram') expect(name).toMatch(/_(seconds|bytes)$/);
    }
  });

  it('have no label that can grow without bound', async () => {
    const { registry } = createWorkerProcessMetrics(identity);
    const forbidden = [
      'key',
      'shard',
      'sample',
      'step',
      'generation',
      'lease',
      'pod',
      'host',
      'error',
      'url',
      'message',
    ];
    for (const { name } of registry.getMetricsAsArray()) {
      const { labelNames = [] } = registry.getSingleMetric(name) as unknown as { labelNames?: string[] };
      if (name.startsWith('covey_'))
        expect(
          labelNames.filter((label) => forbidden.includes(label)),
          name,
        ).toEqual([]);
    }
  });

  it('fold label values that are not on a list into one', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.string(), fc.constantFrom('a', 'b'))),
        fc.array(fc.double()),
        (values, slots) => {
          const labels = new Set(values.map((value) => boundedLabel(value, ['a', 'b'])));
          expect([...labels].every((label) => ['a', 'b', OTHER].includes(label))).toBe(true);
          const workers = new Set(slots.map(workerLabel));
          expect([...workers].every((label) => label === OTHER || Number(label) < WORKER_SLOTS_MAX)).toBe(true);
        },
      ),
    );
    expect(workerLabel(3)).toBe('3');
  });

  it('of two processes in one test do not clash, and carry their identity', async () => {
    createProcessMetrics({ version: '1', commit: 'a' });
    const text = await createWorkerProcessMetrics(identity).registry.metrics();
    expect(text).toContain('covey_build_info{version="1.2.3",commit="abc"} 1');
    expect(text).toContain('covey_run_info{run="first",config_sha="ffffffffffff"} 1');
  });

  it('are served with health, and nothing else is', async () => {
    const { registry, store } = createProcessMetrics(identity);
    store.bytes.inc({ direction: 'in' }, 42);
    let problem: string | undefined;
    server = await serveMetrics({}, { registry, health: () => problem });
    const page = await fetch(`${server.url}/metrics`);
    expect(page.headers.get('content-type')).toContain('text/plain');
    const text = await page.text();
    expect(text).toContain('covey_s3_bytes_total{direction="in"} 42');
    expect(text).toContain('nodejs_eventloop_lag_seconds');
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    problem = 'no coordinator';
    const health = await fetch(`${server.url}/healthz`);
    expect([health.status, await health.text()]).toEqual([503, 'no coordinator\n']);
    expect((await fetch(`${server.url}/`)).status).toBe(404);
    expect((await fetch(`${server.url}/metrics`, { method: 'POST' })).status).toBe(405);
  });

  it('say UNAVAILABLE when their port is taken', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as AddressInfo;
    const { registry } = createProcessMetrics(identity);
    await expect(serveMetrics({ port }, { registry })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await new Promise((resolve) => taken.close(resolve));
  });
});
