import { html } from 'hono/html';
import { CoveyError } from '../../common/errors.ts';
import { writeWhole } from '../../common/whole-file.ts';
import { nearestNeighbours } from '../../models/linear/knn.ts';
import type { EmbeddingFolder } from '../../transfer/features/embedding-folder.ts';
import type { Dataset } from '../../worker/data/dataset.ts';
import type { ShardCache } from '../../worker/data/shard-cache.ts';
import type { Html } from '../report/line-chart.ts';
import { renderPage } from '../report/page.ts';
import { locatedByKey, thumbnail } from './thumbnail.ts';

export interface NeighbourPageOptions {
  readonly file: string;
  readonly title: string;
  /** ISO 8601. */
  readonly createdAt: string;
  /** Pictures shown, evenly spread over the dataset. */
  readonly pages: number;
}

interface Modules {
  readonly folder: EmbeddingFolder;
  readonly dataset: Dataset;
  readonly cache: ShardCache;
  readonly signal: AbortSignal;
}

const NEIGHBOURS = 8;

/** A static page: some pictures of the dataset, each with the pictures whose features are nearest by cosine. */
export async function writeNeighbourPage(options: NeighbourPageOptions, modules: Modules): Promise<void> {
  const { keys, features } = await modules.folder.readAll();
  if (keys.length < 2) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot draw neighbours: ${keys.length} pictures have features, two are needed`,
    );
  }
  const shown = Math.min(options.pages, keys.length);
  const queries = Array.from({ length: shown }, (_, i) => Math.floor((i * keys.length) / shown));
  const { values, columns } = features;
  const queries_QD = Float32Array.from({ length: shown * columns }, (_, i) => {
    return values[queries[Math.floor(i / columns)]! * columns + (i % columns)]!;
  });
  const { rows_QC, similarities_QC, count } = nearestNeighbours(
    { features_ND: values, dimensions: columns },
    queries_QD,
    {
      count: NEIGHBOURS,
      selfRow: (query) => queries[query]!,
    },
  );
  const located = await locatedByKey(modules.dataset, modules.signal);
  const tile = async (row: number, note: string): Promise<Html> => {
    const { key, label, caption } = keys[row]!;
    const source = await thumbnail(located.get(key), modules);
    const text = String(label ?? caption ?? key);
    return html`<figure><img class="tile" src="${source}" alt="${text}" width="66" height="66" loading="lazy"><figcaption>${text} <span class="quiet">${note}</span></figcaption></figure>`;
  };
  const rows: Html[] = [];
  for (const [q, query] of queries.entries()) {
    const tiles: Html[] = [];
    for (let c = 0; c < count; c++) {
      tiles.push(await tile(rows_QC[q * count + c]!, similarities_QC[q * count + c]!.toFixed(2)));
    }
    rows.push(
      html`<div class="row"><div class="tiles">${await tile(query, '')}</div><div class="tiles">${tiles}</div></div>`,
    );
  }
  const page = await renderPage({
    title: options.title,
    summary: `${shown} of ${keys.length} pictures of ${modules.dataset.manifest.name}, each with its ${count} nearest by the cosine of their features.`,
    createdAt: options.createdAt,
    headline: [],
    sections: rows,
  });
  await writeWhole(options.file, page);
}
