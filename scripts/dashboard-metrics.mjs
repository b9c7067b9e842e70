// Which metrics the dashboard and the alerts ask for, and which ones the sources define.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const METRIC = /\b(?:covey|grpc_server|nodejs|process)_[a-z0-9_]+\b/g;
const HISTOGRAM_SUFFIX = /_(bucket|sum|count)$/;
/** prom-client's own: defined as soon as default metrics are collected. */
const FROM_PROM_CLIENT = /^(nodejs|process)_/;

function namesIn(text) {
  return new Set((text.match(METRIC) ?? []).map((name) => name.replace(HISTOGRAM_SUFFIX, '')));
}

/** Names in the expressions only: prose may mention what it likes. */
export function metricsUsed(expressions) {
  return namesIn(expressions.join('\n'));
}

/** Names that the sources below these folders define, as string literals. */
export function metricsDefined(root, folders) {
  const found = new Set();
  const visit = (folder) => {
    for (const entry of readdirSync(path.join(root, folder), { withFileTypes: true })) {
      const relative = path.join(folder, entry.name);
      if (entry.isDirectory()) visit(relative);
      else if (entry.name.endsWith('.ts')) {
        for (const [, name] of readFileSync(path.join(root, relative), 'utf8').matchAll(
          /['"`]((?:covey|grpc_server)_[a-z0-9_]+)['"`]/g,
        ))
          found.add(name);
      }
    }
  };
  for (const folder of folders) visit(folder);
  return found;
}

/** Used but defined nowhere. */
export function undefinedMetrics(used, defined) {
  return [...used].filter((name) => !defined.has(name) && !FROM_PROM_CLIENT.test(name)).sort();
}
