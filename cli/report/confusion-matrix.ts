import { html } from 'hono/html';
import type { Html } from './line-chart.ts';

export interface ConfusionMatrix {
  readonly names: readonly string[];
  /** Pictures of each class. */
  readonly pictures: readonly number[];
  /** Of class `truth` as many were taken for `predicted`; right ones too. */
  readonly cells: readonly { readonly truth: number; readonly predicted: number; readonly count: number }[];
}

/** More classes than this are no picture any more. */
export const MATRIX_CLASSES_MAX = 50;

const SIDE = 860;
const MARGIN = 150;
const NAME_CHARACTERS_MAX = 20;

/** A row per right class, a column per answer; the darker a cell, the larger its share of the row. */
export function confusionMatrix({ names, pictures, cells }: ConfusionMatrix): Html {
  const cell = (SIDE - MARGIN) / names.length;
  const at = (index: number) => (MARGIN + index * cell).toFixed(1);
  const middle = (index: number) => (MARGIN + (index + 0.5) * cell).toFixed(1);
  const side = Math.max(1, cell - 1).toFixed(1);
  return html`<svg xmlns="http://www.w3.org/2000/svg" class="chart matrix" viewBox="0 0 ${SIDE} ${SIDE}" role="img" aria-label="Confusion matrix">
<title>Confusion matrix: a row per right class, a column per answer</title>
${names.map(
  (name, k) =>
    html`<text x="${MARGIN - 6}" y="${middle(k)}" text-anchor="end" dominant-baseline="middle">${cut(name)}</text>
<text x="${middle(k)}" y="${MARGIN - 6}" transform="rotate(-60 ${middle(k)} ${MARGIN - 6})">${cut(name)}</text>`,
)}
${cells.map(
  ({ truth, predicted, count }) =>
    html`<rect class="${truth === predicted ? 'right' : 'wrong'}" x="${at(predicted)}" y="${at(truth)}" width="${side}" height="${side}" fill-opacity="${(count / pictures[truth]!).toFixed(3)}"><title>${names[truth]!}: ${count} of ${pictures[truth]!} taken for ${names[predicted]!}</title></rect>`,
)}
</svg>`;
}

const cut = (name: string) => (name.length > NAME_CHARACTERS_MAX ? `${name.slice(0, NAME_CHARACTERS_MAX - 1)}…` : name);
