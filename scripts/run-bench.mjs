// `npm run bench -- NAME [--json] [--quick]`: the one way in to every benchmark. A benchmark is bench/NAME.ts with
// `run({ quick, json }) → rows {case, ours, peer, ratio, unit}`; ratio > 1 means that covey is better. One whose rows hold more
// exports `table(rows)`; options beyond --json and --quick are handed on as they are.
import { runNamedModule, shown } from './named-module.mjs';

await runNamedModule({
  command: 'bench',
  folder: 'bench',
  textOptions: ['only', 'threads', 'precision', 'peers'],
  plainTable: (rows) => ({
    head: ['case', 'ours', 'peer', 'ratio', 'unit'],
    rows: rows.map((row) => [row.case, shown(row.ours), shown(row.peer), shown(row.ratio), row.unit]),
    notes: ['ratio > 1: covey is better'],
  }),
});
