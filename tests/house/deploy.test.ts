import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
// @ts-expect-error a script without types
import { metricsDefined, metricsUsed, undefinedMetrics } from '../../scripts/dashboard-metrics.mjs';
// @ts-expect-error a script without types
import { dashboardText } from '../../scripts/gen-dashboard.mjs';

const ROOT = path.resolve(import.meta.dirname, '../..');
const DEPLOY = path.join(ROOT, 'deploy');
const read = (file: string) => readFileSync(path.join(DEPLOY, file), 'utf8');

interface Panel {
  readonly type: string;
  readonly title: string;
  readonly gridPos: { x: number; y: number; w: number; h: number };
  readonly targets?: readonly { readonly expr: string }[];
}
interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string };
}

const dashboard = JSON.parse(read('grafana/dashboards/covey.json')) as { panels: Panel[] };
const alerts = (parse(read('alerts.yml')) as { groups: { rules: Rule[] }[] }).groups.flatMap((group) => group.rules);
const expressions = [
  ...dashboard.panels.flatMap((panel) => (panel.targets ?? []).map((target) => target.expr)),
  ...alerts.map((rule) => rule.expr),
];

describe('the dashboard and the alerts', () => {
  it('ask only for metrics that exist', () => {
    const defined = metricsDefined(ROOT, ['common', 'coordinator', 'worker']);
    expect(undefinedMetrics(metricsUsed(expressions), defined)).toEqual([]);
  });

  it('show every metric of the coordinator', () => {
    const shown = metricsUsed(expressions) as Set<string>;
    // Identities and counts of the control plane's own writes: for queries by hand.
    const notShown = ['covey_run_info', 'covey_build_info', 'covey_global_batch_size', 'covey_head_writes_total'];
    const missing = [...(metricsDefined(ROOT, ['coordinator']) as Set<string>)].filter(
      (name) => !shown.has(name) && !notShown.includes(name),
    );
    expect(missing).toEqual([]);
  });

  it('find a panel whose metric does not exist', () => {
    const used = metricsUsed([
      'rate(covey_no_such_thing_total[5m])',
      'histogram_quantile(0.9, covey_x_seconds_bucket)',
    ]);
    expect(undefinedMetrics(used, new Set(['covey_x_seconds']))).toEqual(['covey_no_such_thing_total']);
  });

  it('are what the generator writes', () => {
    expect(read('grafana/dashboards/covey.json')).toBe(dashboardText());
  });

  it('lay the panels out without overlap, inside 24 columns', () => {
    const taken = new Set<string>();
    for (const { gridPos, title } of dashboard.panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.has(`${x},${y}`), `${title} at ${x},${y}`).toBe(false);
          taken.add(`${x},${y}`);
        }
      }
    }
  });

  it('give every alert a name of its own, a severity and a summary', () => {
    expect(new Set(alerts.map((rule) => rule.alert)).size).toBe(alerts.length);
    for (const rule of alerts) {
      expect(rule.alert).toMatch(/^Covey[A-Z]/);
      expect(['page', 'warn', 'info']).toContain(rule.labels.severity);
      expect(rule.annotations.summary.length).toBeGreaterThan(10);
    }
  });
});

describe('the compose file', () => {
  type Service = Record<string, unknown> & {
    volumes?: string[];
    ports?: string[];
    depends_on?: object;
    image?: string;
  };
  const compose = parse(read('compose.yaml'), { merge: true }) as {
    services: Record<string, Service>;
    volumes: Record<string, unknown>;
  };
  const services = Object.entries(compose.services);

  it('has every part of a cluster', () => {
    expect(Object.keys(compose.services)).toEqual(
      expect.arrayContaining(['objectstore', 'nats', 'coordinator', 'worker', 'prometheus', 'grafana']),
    );
  });

  it('publishes ports on the loopback address only', () => {
    for (const [name, service] of services)
      for (const port of service.ports ?? []) expect(port, name).toMatch(/^127\.0\.0\.1:/);
  });

  it('pins every image to a version, and does not use the withdrawn minio image', () => {
    for (const [name, { image }] of services) {
      expect(image, name).toMatch(/:[\w.-]+$/);
      expect(image, name).not.toMatch(/:latest$|minio/);
    }
  });

  it('mounts only files that exist and volumes that are declared', () => {
    for (const [name, service] of services) {
      for (const [source = ''] of (service.volumes ?? []).map((mount) => mount.split(':'))) {
        if (source.startsWith('.'))
          expect(readdirSync(path.dirname(path.join(DEPLOY, source))), `${name}: ${source}`).toContain(
            path.basename(source),
          );
        else expect(Object.keys(compose.volumes), name).toContain(source);
      }
    }
  });

  it('depends only on services it has', () => {
    for (const [, service] of services) {
      const wanted = Array.isArray(service.depends_on)
        ? (service.depends_on as string[])
        : Object.keys(service.depends_on ?? {});
      for (const one of wanted) expect(Object.keys(compose.services)).toContain(one);
    }
  });
});

describe('the other deployment files', () => {
  it('parse', () => {
    const prometheus = parse(read('prometheus.yml')) as { scrape_configs: { job_name: string }[] };
    expect(prometheus.scrape_configs.map((job) => job.job_name)).toEqual(['covey-coordinator', 'covey-worker']);
    for (const file of readdirSync(path.join(DEPLOY, 'grafana/provisioning'), { recursive: true, encoding: 'utf8' })) {
      if (file.endsWith('.yml'))
        expect(parse(read(`grafana/provisioning/${file}`)), file).toHaveProperty('apiVersion', 1);
    }
    expect(JSON.parse(read('seaweedfs/s3.json'))).toHaveProperty('identities');
  });

  it('set in the image what the launcher sets elsewhere', async () => {
    const { recommendedSettings } = await import('../../cli/process-environment.ts');
    const dockerfile = read('Dockerfile');
    for (const name of Object.keys(recommendedSettings())) expect(dockerfile).toContain(`${name}=`);
  });
});
