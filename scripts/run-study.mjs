// `npm run study -- NAME [--json] [--quick]`: the one way in to every study: trainings compared with each other on the icon pictures.
// A study is bench/studies/NAME.ts with `run({ quick, json, seconds, only, threads }) → rows` and `table(rows)`.
import { runNamedModule } from './named-module.mjs';

await runNamedModule({
  command: 'study',
  folder: 'bench/studies',
  textOptions: ['seconds', 'only', 'threads', 'seed'],
  plainTable: (rows) => ({
    head: Object.keys(rows[0] ?? {}),
    rows: rows.map((row) => Object.values(row).map(String)),
    notes: [],
  }),
});
