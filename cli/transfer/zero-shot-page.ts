import { html } from 'hono/html';
import type { CaptionRetrieval } from '../../transfer/zero-shot/caption-retrieval.ts';
import type { ConfusedPair, ZeroShotScores } from '../../transfer/zero-shot/zero-shot-scores.ts';
import { confusionMatrix, MATRIX_CLASSES_MAX } from '../report/confusion-matrix.ts';
import type { Html } from '../report/line-chart.ts';
import { renderPage } from '../report/page.ts';
import { factsSection, percent } from './task-report.ts';

export interface ZeroShotPage {
  readonly origin: string;
  readonly data: string;
  /** ISO 8601. */
  readonly createdAt: string;
  readonly scores: ZeroShotScores;
  readonly templates: readonly string[];
  readonly retrieval: CaptionRetrieval | undefined;
  /** A row's picture, as a data URI. */
  readonly picture: (row: number) => Promise<string>;
  /** A row that is of a class, the first one; undefined without any. */
  readonly pictureOf: (label: number) => number | undefined;
  readonly recipe: string;
}

const PAIRS_SHOWN = 12;
const CLASSES_SHOWN = 500;

export async function zeroShotPage(page: ZeroShotPage): Promise<string> {
  const { scores, templates, retrieval } = page;
  return renderPage({
    title: `Zero-shot: ${page.origin}`,
    summary: `${scores.samples} pictures of ${page.data}, each classified among ${scores.classes} classes by texts alone: the class is called in ${templates.length === 1 ? 'one template' : `${templates.length} templates`}.`,
    createdAt: page.createdAt,
    headline: [
      {
        label: 'right at the first guess',
        value: percent(scores.top1),
        note: `chance ${(100 / scores.classes).toFixed(2)} %`,
      },
      { label: 'among the first five', value: percent(scores.top5) },
      { label: 'mean over classes', value: percent(scores.classAccuracy) },
      { label: 'median place of the right class', value: String(scores.medianRank), note: `of ${scores.classes}` },
    ],
    sections: [
      ...(retrieval === undefined ? [] : [retrievalSection(retrieval)]),
      await pairsSection(page),
      ...(scores.classes > MATRIX_CLASSES_MAX ? [] : [matrixSection(scores)]),
      classesSection(scores),
      templatesSection(templates),
      factsSection({ model: page.origin, data: page.data }, page.recipe),
    ],
  });
}

export function retrievalSection({ pictures, captions, metrics }: CaptionRetrieval): Html {
  const row = (label: string, name: string) =>
    html`<tr><th>${label}</th>${[1, 5, 10].map((k) => html`<td class="number">${percent(metrics[`${name}_R@${k}`]!)}</td>`)}<td class="number">${metrics[`${name}_median_rank`]!}</td></tr>`;
  return html`<section><h2>Pictures and their captions</h2><p>${pictures} pictures, ${captions} different captions; each looks for its partner among all of the others’; a picture with several captions for any of them.</p>
<table><thead><tr><th></th><th class="number">R@1</th><th class="number">R@5</th><th class="number">R@10</th><th class="number">median place</th></tr></thead><tbody>
${row('picture → caption', 'image_to_text')}${row('caption → picture', 'text_to_image')}</tbody></table></section>`;
}

async function pairsSection({ scores, picture, pictureOf }: ZeroShotPage): Promise<Html> {
  const shown = scores.confusions.slice(0, PAIRS_SHOWN);
  if (shown.length === 0) return html`<section><h2>Confused most</h2><p>Nothing was confused.</p></section>`;
  const name = (k: number) => scores.perClass[k]!.name;
  const tile = async (row: number, className: string, alt: string) =>
    html`<img class="${className}" src="${await picture(row)}" alt="${alt}" width="66" height="66" loading="lazy">`;
  const rows: Html[] = [];
  for (const pair of shown) {
    const wrong: Html[] = [];
    for (const row of pair.examples) wrong.push(await tile(row, 'tile', name(pair.truth)));
    const other = pictureOf(pair.predicted);
    rows.push(html`<div class="row"><div><strong>${name(pair.truth)}</strong> taken for <span class="wrong-name">${name(pair.predicted)}</span><br><span class="quiet">${pair.count} of ${scores.perClass[pair.truth]!.pictures}</span></div>
<div class="tiles">${wrong}${other === undefined ? '' : html`<span class="quiet">it is:</span>${await tile(other, 'tile right', name(pair.predicted))}`}</div></div>`);
  }
  return html`<section><h2>Confused most</h2><p>Pictures that were taken for another class, the surest first; at the end one of that class.</p>${rows}</section>`;
}

function matrixSection(scores: ZeroShotScores): Html {
  const right = scores.perClass.map(
    ({ pictures, top1 }, k): Omit<ConfusedPair, 'examples'> => ({
      truth: k,
      predicted: k,
      count: Math.round((top1 ?? 0) * pictures),
    }),
  );
  return html`<section><h2>Confusion matrix</h2>${confusionMatrix({
    names: scores.perClass.map(({ name }) => name),
    pictures: scores.perClass.map(({ pictures }) => pictures),
    cells: [...right, ...scores.confusions].filter(({ count }) => count > 0),
  })}</section>`;
}

function classesSection({ perClass, confusions }: ZeroShotScores): Html {
  const rows = perClass
    .map((one, k) => ({ ...one, k }))
    .filter(({ pictures }) => pictures > 0)
    .sort((a, b) => a.top1! - b.top1! || b.pictures - a.pictures || a.k - b.k);
  const taken = new Map<number, string[]>();
  for (const { truth, predicted, count } of confusions) {
    const own = taken.get(truth) ?? [];
    if (own.length < 3) own.push(`${perClass[predicted]!.name} ${count}`);
    taken.set(truth, own);
  }
  return html`<section><h2>Every class</h2><p>The weakest first${rows.length > CLASSES_SHOWN ? html`; the ${CLASSES_SHOWN} weakest of ${rows.length}, all of them are in the JSON` : ''}.</p>
<table><thead><tr><th>class</th><th class="number">pictures</th><th class="number">top-1</th><th class="number">top-5</th><th>taken for</th><th class="number">others taken for it</th></tr></thead><tbody>${rows
    .slice(0, CLASSES_SHOWN)
    .map(
      ({ k, name, pictures, top1, top5, takenWrongly }) =>
        html`<tr><th>${name}</th><td class="number">${pictures}</td><td class="number">${percent(top1!)}</td><td class="number">${percent(top5!)}</td><td>${(taken.get(k) ?? []).join(', ')}</td><td class="number">${takenWrongly}</td></tr>`,
    )}</tbody></table></section>`;
}

export function templatesSection(templates: readonly string[]): Html {
  return html`<section><h2>Templates</h2><ul class="columns">${templates.map((template) => html`<li>${template}</li>`)}</ul></section>`;
}
