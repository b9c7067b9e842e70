// Writes deploy/grafana/dashboards/covey.json from dashboard-rows.mjs: a dashboard as Grafana stores it is too long to review.
//   node scripts/gen-dashboard.mjs [--check]
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { ROWS } from './dashboard-rows.mjs';

const FILE = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../deploy/grafana/dashboards/covey.json');
const COLUMNS = 24;
const DATASOURCE = { type: 'prometheus', uid: 'prometheus' };

function panel([title, type, unit, queries, description = '', style = ''], id, gridPos) {
  const targets = queries.map((one, index) => ({
    ...one,
    datasource: DATASOURCE,
    refId: String.fromCharCode(65 + index),
  }));
  const custom =
    style === 'stacked'
      ? { fillOpacity: 30, stacking: { mode: 'normal', group: 'A' } }
      : { fillOpacity: 0, spanNulls: true };
  const base = { id, title, type, description, datasource: DATASOURCE, gridPos, targets };
  if (type === 'stat') {
    const options = {
      reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
      textMode: 'auto',
      colorMode: 'value',
    };
    return { ...base, fieldConfig: { defaults: { unit }, overrides: [] }, options };
  }
  const options = { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi', sort: 'desc' } };
  return { ...base, fieldConfig: { defaults: { unit, custom }, overrides: [] }, options };
}

/** The dashboard as Grafana 10 and later read it. */
export function buildDashboard() {
  const panels = [];
  let y = 0;
  let id = 1;
  for (const row of ROWS) {
    panels.push({
      id: id++,
      type: 'row',
      title: row.title,
      collapsed: false,
      gridPos: { x: 0, y: y++, w: COLUMNS, h: 1 },
      panels: [],
    });
    const perLine = row.panels.length > 4 && row.height > 4 ? Math.ceil(row.panels.length / 2) : row.panels.length;
    const w = Math.floor(COLUMNS / perLine);
    for (const [index, one] of row.panels.entries()) {
      const line = Math.floor(index / perLine);
      panels.push(panel(one, id++, { x: (index % perLine) * w, y: y + line * row.height, w, h: row.height }));
    }
    y += Math.ceil(row.panels.length / perLine) * row.height;
  }
  return {
    uid: 'covey',
    title: 'covey',
    tags: ['covey'],
    schemaVersion: 39,
    editable: false,
    refresh: '5s',
    time: { from: 'now-30m', to: 'now' },
    templating: { list: [] },
    annotations: { list: [] },
    panels,
  };
}

/** The file's text. */
export function dashboardText() {
  return `${JSON.stringify(buildDashboard(), null, 1)}\n`;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (!process.argv.includes('--check')) writeFileSync(FILE, dashboardText());
  else if (readFileSync(FILE, 'utf8') !== dashboardText()) {
    process.stderr.write('deploy/grafana/dashboards/covey.json is not what scripts/gen-dashboard.mjs writes: run it\n');
    process.exitCode = 1;
  }
}
